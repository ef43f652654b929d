//! Parameters where DataFusion plans literals only: arguments of table functions, offsets of window frames, time zones, and a
//! few more. There the value itself is put into the text's tree before it is planned; while it is not known, one like it.
//!
//! A statement with such a parameter is planned anew for each execution ([`super::params::Typed::in_place`]).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, NamedWindowExpr, Query, Select, TableFactor,
    TableFunctionArgs, TableVersion, Value, ValueWithSpan, VisitMut, VisitorMut, WindowFrame, WindowFrameBound,
    WindowSpec, WindowType,
};

use super::rewrite::call;
use super::time_travel::takes_times;

/// What a literal in such a place is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// An argument of a table function, the offset of a window frame.
    Number,
    /// `AS OF $1`, `changes(…, $1)`.
    Time,
    /// `LIKE … ESCAPE $1`.
    Escape,
    /// `AT TIME ZONE $1`.
    Zone,
    /// `date_part($1, …)`.
    Part,
    /// `INTERVAL $1`; with a unit after it, a number.
    Interval,
}

impl Place {
    fn data_type(self) -> DataType {
        match self {
            Self::Number => DataType::Int64,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, None),
            _ => DataType::Utf8,
        }
    }

    /// What stands in for a value that is not known.
    fn stand_in(self) -> Value {
        match self {
            Self::Number => Value::Number("1".to_owned(), false),
            Self::Time => Value::Number("0".to_owned(), false),
            Self::Escape => Value::SingleQuotedString("\\".to_owned()),
            Self::Zone => Value::SingleQuotedString("UTC".to_owned()),
            Self::Part => Value::SingleQuotedString("year".to_owned()),
            Self::Interval => Value::SingleQuotedString("1".to_owned()),
        }
    }
}

/// Puts values into a query's tree where only literals are planned; gives the types of those parameters by number, from 1.
/// `values`: of all parameters, each of its type; none when they are not known.
pub(super) fn put_in_place(query: &mut Query, values: &[ScalarValue]) -> BTreeMap<usize, DataType> {
    let mut places = Places { values, found: BTreeMap::new() };
    let _ = query.visit(&mut places);
    places.found
}

struct Places<'a> {
    values: &'a [ScalarValue],
    found: BTreeMap<usize, DataType>,
}

/// Parameters within a time, each a time itself.
struct Times<'a, 'v>(&'a mut Places<'v>);

impl VisitorMut for Times<'_, '_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Value(ValueWithSpan { value: Value::Placeholder(_), .. })) {
            self.0.put_expr(expr, Place::Time);
            let time = std::mem::replace(expr, Expr::value(Value::Null));
            *expr = call("arrow_cast", [time, Expr::value(Value::SingleQuotedString("Timestamp(ns)".to_owned()))]);
        }
        ControlFlow::Continue(())
    }
}

impl Places<'_> {
    fn put_times(&mut self, time: &mut Expr) {
        let _ = time.visit(&mut Times(self));
    }

    fn put(&mut self, value: &mut Value, place: Place) {
        let Value::Placeholder(name) = value else { return };
        let Some(number) = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()) else { return };
        self.found.entry(number).or_insert_with(|| place.data_type());
        *value = match self.values.get(number - 1) {
            Some(value) => literal(value),
            None => place.stand_in(),
        };
    }

    fn put_expr(&mut self, expr: &mut Expr, place: Place) {
        match expr {
            Expr::Nested(inner) => self.put_expr(inner, place),
            Expr::Value(ValueWithSpan { value, .. }) => self.put(value, place),
            _ => {}
        }
    }

    fn put_argument(&mut self, argument: &mut FunctionArg, place: Place) {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } = argument
        {
            self.put_expr(expr, place);
        }
    }

    fn put_frame(&mut self, frame: Option<&mut WindowFrame>) {
        let Some(frame) = frame else { return };
        for bound in std::iter::once(&mut frame.start_bound).chain(&mut frame.end_bound) {
            if let WindowFrameBound::Preceding(Some(offset)) | WindowFrameBound::Following(Some(offset)) = bound {
                self.put_expr(offset, Place::Number);
            }
        }
    }

    fn put_function(&mut self, function: &mut Function) {
        if let Some(WindowType::WindowSpec(WindowSpec { window_frame, .. })) = &mut function.over {
            self.put_frame(window_frame.as_mut());
        }
        let is_part = matches!(function.name.to_string().to_ascii_lowercase().as_str(), "date_part" | "datepart");
        if is_part
            && let FunctionArguments::List(list) = &mut function.args
            && let Some(part) = list.args.first_mut()
        {
            self.put_argument(part, Place::Part);
        }
    }
}

impl VisitorMut for Places<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for window in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(WindowSpec { window_frame, .. }) = &mut window.1 {
                self.put_frame(window_frame.as_mut());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(time)), .. } => {
                self.put_times(time);
            }
            TableFactor::Table { name, args: Some(TableFunctionArgs { args, .. }), .. }
            | TableFactor::Function { name, args, .. } => {
                let times = takes_times(name);
                for argument in args {
                    match argument {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(time)) if times => self.put_times(time),
                        argument => self.put_argument(argument, Place::Number),
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => self.put_function(function),
            Expr::Like { escape_char: Some(escape), .. }
            | Expr::ILike { escape_char: Some(escape), .. }
            | Expr::SimilarTo { escape_char: Some(escape), .. } => self.put(&mut escape.value, Place::Escape),
            Expr::AtTimeZone { time_zone, .. } => self.put_expr(time_zone, Place::Zone),
            Expr::Interval(interval) => self.put_expr(&mut interval.value, Place::Interval),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn literal(value: &ScalarValue) -> Value {
    match value {
        ScalarValue::Int64(Some(number)) | ScalarValue::TimestampNanosecond(Some(number), None) => {
            Value::Number(number.to_string(), false)
        }
        value if value.is_null() => Value::Null,
        ScalarValue::Utf8(Some(text)) => Value::SingleQuotedString(text.clone()),
        other => Value::SingleQuotedString(other.to_string()),
    }
}
