//! What a client may ask for. A statement that is not one of these is refused.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, TableFactor, TableWithJoins};
use seracdb_storage::catalog::Privilege;

use super::names::TableName;
use crate::identity::Role;

/// One statement, parsed, within the limits, with nothing in it that DataFusion would silently ignore.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Statement {
    /// SELECT, VALUES, WITH, TABLE.
    Query(Box<Query>),
    /// Shows the plan. Runs `inner` only with `analyze`.
    Explain {
        /// Runs it and shows what it cost.
        analyze: bool,
        /// All plans, not only the last.
        verbose: bool,
        /// `indent`, `tree`, `pgjson` or `graphviz`; `None` = the default.
        format: Option<String>,
        /// A query, INSERT, UPDATE or DELETE.
        inner: Box<Statement>,
    },
    /// Adds rows.
    Insert(Insert),
    /// Changes rows.
    Update(Update),
    /// Removes rows.
    Delete(Delete),
    /// MERGE.
    Merge(Box<Merge>),
    /// CREATE NAMESPACE, CREATE SCHEMA.
    CreateNamespace {
        /// The namespace.
        name: String,
        /// One that is there already is no error.
        if_not_exists: bool,
    },
    /// DROP NAMESPACE, DROP SCHEMA.
    DropNamespace {
        /// The namespace.
        name: String,
        /// None of this name is no error.
        if_exists: bool,
        /// Its tables too.
        cascade: bool,
    },
    /// CREATE [SHARED | USER | STREAM] TABLE.
    CreateTable(CreateTable),
    /// CREATE TABLE … AS query.
    CreateTableAs(CreateTableAs),
    /// ALTER TABLE.
    AlterTable {
        /// The table.
        name: TableName,
        /// None of this name is no error.
        if_exists: bool,
        /// How.
        change: AlterTable,
    },
    /// DROP TABLE.
    DropTable {
        /// The tables.
        names: Vec<TableName>,
        /// None of such a name is no error.
        if_exists: bool,
        /// The views that read them too.
        cascade: bool,
    },
    /// CREATE [OR REPLACE] VIEW.
    CreateView(CreateView),
    /// DROP VIEW.
    DropView {
        /// The views.
        names: Vec<TableName>,
        /// None of such a name is no error.
        if_exists: bool,
        /// The views that read them too.
        cascade: bool,
    },
    /// COMMENT ON … IS 'text' or NULL.
    Comment {
        /// What it is on.
        on: Commented,
        /// `None` = removed.
        text: Option<String>,
    },
    /// CREATE INDEX.
    CreateIndex(CreateIndex),
    /// DROP INDEX [namespace.]name.
    DropIndex {
        /// The index, named as tables are.
        name: TableName,
        /// None of this name is no error.
        if_exists: bool,
    },
    /// CREATE USER name WITH PASSWORD '…' [ROLE role].
    CreateUser {
        /// The user's name, as written.
        name: String,
        /// The password.
        password: Password,
        /// What the user may do.
        role: Role,
    },
    /// ALTER USER name SET …
    AlterUser {
        /// The user's name, as written.
        name: String,
        /// What is set.
        change: AlterUser,
    },
    /// DROP USER name.
    DropUser {
        /// The user's name, as written.
        name: String,
        /// None of this name is no error.
        if_exists: bool,
    },
    /// GRANT rights ON something TO somebody.
    Grant(Grant),
    /// REVOKE rights ON something FROM somebody.
    Revoke(Grant),
    /// CREATE TOKEN.
    CreateToken(CreateToken),
    /// DROP TOKEN [IF EXISTS] 'id'.
    DropToken {
        /// What it is called by.
        id: String,
        /// None of this id is no error.
        if_exists: bool,
    },
    /// RUN JOB type ['parameters'].
    RunJob {
        /// As written.
        job_type: String,
        /// JSON; empty for none.
        params: String,
    },
    /// CANCEL JOB 'id'.
    CancelJob(String),
    /// CANCEL QUERY 'id'.
    CancelQuery(String),
    /// STORAGE FLUSH TABLE name.
    FlushTable(TableName),
    /// STORAGE FLUSH ALL.
    FlushAll,
    /// STORAGE COMPACT TABLE name.
    CompactTable(TableName),
    /// STORAGE CHECK TABLE name.
    CheckTable(TableName),
    /// SHOW TABLES [IN namespace] [LIKE pattern].
    ShowTables {
        /// Only this namespace's.
        namespace: Option<String>,
        /// Only names like this.
        like: Option<String>,
    },
    /// SHOW NAMESPACES, SHOW SCHEMAS.
    ShowNamespaces,
    /// DESCRIBE table, SHOW COLUMNS FROM table.
    Describe(TableName),
    /// SHOW CREATE TABLE, SHOW CREATE VIEW.
    ShowCreate(TableName),
    /// SHOW MANIFEST FOR table.
    ShowManifest(TableName),
    /// SHOW MANIFEST CACHE.
    ShowManifestCache,
    /// SHOW setting; `None` = SHOW ALL.
    ShowSetting(Option<String>),
    /// SET setting = value; `None` = DEFAULT, RESET.
    Set {
        /// The setting's name in lower case.
        name: String,
        /// Its new value as text.
        value: Option<String>,
    },
    /// USE namespace, SET search_path, SET schema.
    UseNamespace(String),
    /// BEGIN, COMMIT, ROLLBACK and what goes with them.
    Transaction(TransactionStatement),
}

/// What is said of a session's transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransactionStatement {
    /// BEGIN, START TRANSACTION.
    Begin {
        /// READ ONLY.
        read_only: bool,
    },
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT name.
    Savepoint(String),
    /// RELEASE name.
    Release(String),
    /// ROLLBACK TO name.
    RollbackTo(String),
    /// SET TRANSACTION.
    Set {
        /// READ ONLY, else READ WRITE.
        read_only: bool,
    },
}

/// INSERT INTO table [AS alias] [(columns)] source [ON CONFLICT …].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Insert {
    /// Where the rows go.
    pub table: TableName,
    /// The name that ON CONFLICT and RETURNING use for it.
    pub alias: Option<Ident>,
    /// The column list as written; empty = all of the user's columns.
    pub columns: Vec<String>,
    /// Where the rows come from.
    pub source: InsertSource,
    /// What becomes of rows with a unique key that another row has; `None` = they are refused.
    pub conflict: Option<OnConflict>,
    /// What it gives of the rows it has written; empty = their number.
    pub returning: Vec<SelectItem>,
}

/// ON CONFLICT [(columns) | ON CONSTRAINT name] action.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OnConflict {
    /// Which unique key is meant.
    pub target: ConflictTarget,
    /// What is done instead.
    pub action: ConflictAction,
}

/// Which unique key an ON CONFLICT means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConflictTarget {
    /// Any.
    Any,
    /// That of these columns.
    Columns(Vec<String>),
    /// That of this name.
    Constraint(String),
}

/// What is done with a row whose key another row has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConflictAction {
    /// DO NOTHING.
    Nothing,
    /// DO UPDATE SET assignments [WHERE selection].
    Update {
        /// Column and new value.
        assignments: Vec<(String, Expr)>,
        /// Which rows; `None` = all.
        selection: Option<Box<Expr>>,
    },
    /// INSERT OR REPLACE: every column that is given.
    Replace,
}

impl Insert {
    /// The expressions of its ON CONFLICT.
    pub(crate) fn conflict_exprs(&self) -> impl Iterator<Item = &Expr> {
        let (assignments, selection) = match &self.conflict {
            Some(OnConflict { action: ConflictAction::Update { assignments, selection }, .. }) => {
                (assignments.as_slice(), selection.as_deref())
            }
            _ => (&[][..], None),
        };
        assignments.iter().map(|(_, value)| value).chain(selection)
    }
}

/// Where the rows of an INSERT come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InsertSource {
    /// VALUES, row by row; a DEFAULT is a NULL by now.
    Values(Vec<Vec<Expr>>),
    /// SELECT, TABLE, WITH.
    Query(Box<Query>),
    /// DEFAULT VALUES: one row of defaults.
    Defaults,
}

/// UPDATE table [AS alias] SET assignments [FROM others] [WHERE selection].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    /// Whose rows change.
    pub table: TableName,
    /// The name the statement uses for it.
    pub alias: Option<Ident>,
    /// Column and new value; each column once, none a system column; a DEFAULT is a NULL by now.
    pub assignments: Vec<(String, Expr)>,
    /// What it is joined with.
    pub from: Vec<TableWithJoins>,
    /// Which rows; `None` = all.
    pub selection: Option<Expr>,
    /// What it gives of the rows it has written; empty = their number.
    pub returning: Vec<SelectItem>,
}

/// DELETE FROM table [AS alias] [USING others] [WHERE selection].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delete {
    /// Whose rows go.
    pub table: TableName,
    /// The name the statement uses for it.
    pub alias: Option<Ident>,
    /// What it is joined with.
    pub using: Vec<TableWithJoins>,
    /// Which rows; `None` = all.
    pub selection: Option<Expr>,
    /// What it gives of the rows it has written; empty = their number.
    pub returning: Vec<SelectItem>,
}

/// MERGE INTO table [AS alias] USING source ON on WHEN …
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merge {
    /// Whose rows change.
    pub table: TableName,
    /// The name the statement uses for it.
    pub alias: Option<Ident>,
    /// What it is merged with.
    pub source: TableFactor,
    /// Which rows of both belong together.
    pub on: Expr,
    /// What is done; the first that holds is a row's.
    pub clauses: Vec<MergeClause>,
    /// What it gives of the rows it has written; empty = their number.
    pub returning: Vec<SelectItem>,
}

/// WHEN … [AND condition] THEN action.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergeClause {
    /// Which rows it is about.
    pub when: MergeWhen,
    /// Which of them; `None` = all.
    pub condition: Option<Expr>,
    /// What is done.
    pub action: MergeAction,
}

/// Which rows a clause of a MERGE is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeWhen {
    /// MATCHED.
    Matched,
    /// NOT MATCHED [BY TARGET].
    NotMatched,
    /// NOT MATCHED BY SOURCE.
    NotMatchedBySource,
}

/// What a clause of a MERGE does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MergeAction {
    /// INSERT [(columns)] VALUES (values); `None` = DEFAULT VALUES.
    Insert {
        /// The column list as written; empty = all of the user's columns.
        columns: Vec<String>,
        /// One value per column.
        values: Option<Vec<Expr>>,
    },
    /// UPDATE SET: column and new value.
    Update(Vec<(String, Expr)>),
    /// DELETE.
    Delete,
    /// DO NOTHING.
    Nothing,
}

impl Merge {
    /// Whether it is also about rows that have none in the source.
    pub(crate) fn by_source(&self) -> bool {
        self.clauses.iter().any(|clause| clause.when == MergeWhen::NotMatchedBySource)
    }

    /// Its expressions, but for the source's.
    pub(crate) fn exprs(&self) -> impl Iterator<Item = &Expr> {
        std::iter::once(&self.on).chain(self.clauses.iter().flat_map(MergeClause::exprs))
    }
}

impl MergeClause {
    fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let values: Vec<&Expr> = match &self.action {
            MergeAction::Insert { values, .. } => values.iter().flatten().collect(),
            MergeAction::Update(assignments) => assignments.iter().map(|(_, value)| value).collect(),
            MergeAction::Delete | MergeAction::Nothing => vec![],
        };
        self.condition.iter().chain(values)
    }
}

/// CREATE TABLE, as far as the text tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CreateTable {
    /// Its name.
    pub name: TableName,
    /// Who sees what.
    pub kind: TableKind,
    /// It goes with its session.
    pub temporary: bool,
    /// One that is there already is no error.
    pub if_not_exists: bool,
    /// It may take the place of another.
    pub or_replace: bool,
    /// The table whose columns it has; then it has none of its own here.
    pub like: Option<Like>,
    /// The user's columns in order; no system column, no name twice.
    pub columns: Vec<ColumnDef>,
    /// Its unique keys.
    pub unique: Vec<UniqueDef>,
    /// What holds of every row.
    pub checks: Vec<CheckDef>,
    /// WITH (key = value); keys in lower case, values as text. Which of them mean something is the catalog's to say.
    pub options: BTreeMap<String, String>,
}

/// LIKE table [INCLUDING …]: its columns with their types and NOT NULL, and what is true here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Like {
    /// The table.
    pub table: TableName,
    /// INCLUDING DEFAULTS.
    pub defaults: bool,
    /// INCLUDING GENERATED: else a generated column becomes a plain one.
    pub generated: bool,
    /// INCLUDING CONSTRAINTS: what CHECK says.
    pub checks: bool,
    /// INCLUDING INDEXES: PRIMARY KEY and UNIQUE.
    pub keys: bool,
}

/// What ALTER TABLE does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AlterTable {
    /// SET (key = value), RESET (key): `None` = reset.
    Options(BTreeMap<String, Option<String>>),
    /// ALTER [COLUMN] column SET DEFAULT expr, DROP DEFAULT.
    Default {
        /// The column.
        column: String,
        /// As it is kept; `None` = none.
        default: Option<String>,
    },
    /// Changes of columns, one after the other, and then of what rows have to satisfy.
    Changes {
        /// Of columns.
        columns: Vec<ColumnChange>,
        /// Of constraints, but for those that come with a column.
        constraints: Vec<ConstraintChange>,
    },
    /// RENAME [COLUMN] column TO name.
    RenameColumn {
        /// The column.
        column: String,
        /// What it is to be called.
        to: String,
    },
    /// RENAME TO name.
    Rename(TableName),
}

/// What ALTER TABLE does to a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ColumnChange {
    /// ADD [COLUMN].
    Add {
        /// The column.
        column: ColumnDef,
        /// One of its name that is there already is no error.
        if_not_exists: bool,
        /// What comes with it: UNIQUE, PRIMARY KEY, CHECK, and NOT NULL where there is no DEFAULT.
        constraints: Vec<ConstraintChange>,
    },
    /// DROP [COLUMN].
    Drop {
        /// The column.
        column: String,
        /// None of this name is no error.
        if_exists: bool,
    },
    /// ALTER [COLUMN] column [SET DATA] TYPE type.
    Type {
        /// The column.
        column: String,
        /// What it is to be: one of the types of [`super::types::storable`].
        data_type: DataType,
    },
    /// ALTER [COLUMN] column DROP NOT NULL.
    DropNotNull(String),
}

impl ColumnChange {
    /// Whether it is a column with constraints of its own.
    pub(crate) fn has_constraints(&self) -> bool {
        matches!(self, Self::Add { constraints, .. } if !constraints.is_empty())
    }
}

/// What ALTER TABLE does to a constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConstraintChange {
    /// ADD [CONSTRAINT name] CHECK.
    Check(CheckDef),
    /// ADD [CONSTRAINT name] UNIQUE or PRIMARY KEY.
    Unique(UniqueDef),
    /// ALTER [COLUMN] column SET NOT NULL.
    NotNull(String),
    /// DROP CONSTRAINT.
    Drop {
        /// The constraint.
        name: String,
        /// None of this name is no error.
        if_exists: bool,
    },
    /// RENAME CONSTRAINT.
    Rename {
        /// The constraint.
        name: String,
        /// What it is to be called.
        to: String,
    },
}

/// CREATE TABLE … AS query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CreateTableAs {
    /// Its name.
    pub name: TableName,
    /// Who sees what.
    pub kind: TableKind,
    /// It goes with its session.
    pub temporary: bool,
    /// One that is there already is no error.
    pub if_not_exists: bool,
    /// It may take the place of another.
    pub or_replace: bool,
    /// The names of its columns; empty = as the query has them.
    pub columns: Vec<String>,
    /// WITH (key = value).
    pub options: BTreeMap<String, String>,
    /// Where its rows come from, without parameters.
    pub query: Box<Query>,
}

/// CREATE [OR REPLACE] VIEW [IF NOT EXISTS] name [(columns)] AS query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CreateView {
    /// Its name.
    pub name: TableName,
    /// It may take the place of another.
    pub or_replace: bool,
    /// One that is there already is no error.
    pub if_not_exists: bool,
    /// The names of its columns; empty = as the query has them.
    pub columns: Vec<String>,
    /// The query, without parameters.
    pub query: Box<Query>,
    /// The query as it was written.
    pub text: String,
}

/// What a COMMENT is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commented {
    /// NAMESPACE, SCHEMA.
    Namespace(String),
    /// TABLE.
    Table(TableName),
    /// VIEW.
    View(TableName),
    /// COLUMN, of a table or view.
    Column(TableName, String),
}

/// Whose rows a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// One set of rows for all.
    Shared,
    /// A set of rows per user.
    User,
    /// A set of rows per user that is gone after a while.
    Stream,
}

/// A column of CREATE TABLE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnDef {
    /// Its name.
    pub name: String,
    /// What is stored: one of the types of [`super::types::storable`].
    pub data_type: DataType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// DEFAULT, as it is kept.
    pub default: Option<String>,
    /// GENERATED ALWAYS AS, as it is kept.
    pub generated: Option<String>,
}

/// [CONSTRAINT name] CHECK (expr).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckDef {
    /// Its name; `None` = made of the table's.
    pub name: Option<String>,
    /// What must not be false, as it is kept.
    pub expr: String,
}

/// PRIMARY KEY (columns), UNIQUE [NULLS [NOT] DISTINCT] (columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UniqueDef {
    /// CONSTRAINT name; `None` = made of the table's and the columns'.
    pub name: Option<String>,
    /// The columns, each once.
    pub columns: Vec<String>,
    /// PRIMARY KEY: its columns are NOT NULL.
    pub primary: bool,
    /// NULLS NOT DISTINCT.
    pub nulls_equal: bool,
}

impl UniqueDef {
    /// What it is called in SQL.
    pub(crate) fn what(&self) -> &'static str {
        if self.primary { "PRIMARY KEY" } else { "UNIQUE" }
    }
}

/// CREATE [UNIQUE] INDEX [IF NOT EXISTS] [name] ON table (columns) [NULLS [NOT] DISTINCT].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateIndex {
    /// Its name; `None` = made of the table's and the columns'.
    pub name: Option<String>,
    /// The table.
    pub table: TableName,
    /// The columns, each once.
    pub columns: Vec<String>,
    /// One that is there already is no error.
    pub if_not_exists: bool,
    /// UNIQUE: it is a constraint; whether NULLS are NOT DISTINCT.
    pub unique: Option<bool>,
}

/// What ALTER USER sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AlterUser {
    /// PASSWORD '…'.
    Password(Password),
    /// ROLE role.
    Role(Role),
}

/// What GRANT gives, and REVOKE takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Each once; all of them = ALL.
    pub privileges: Vec<Privilege>,
    /// What they are on.
    pub on: GrantedOn,
    /// Who gets or has them, each once.
    pub to: Vec<GrantedTo>,
}

/// What rights are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantedOn {
    /// [TABLE | VIEW] name.
    Table(TableName),
    /// NAMESPACE name, SCHEMA name.
    Namespace(String),
}

/// Whose rights they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantedTo {
    /// A user's name, as written.
    User(String),
    /// ROLE role: users of this role and of higher ones.
    Role(Role),
}

/// CREATE TOKEN [name] [FOR USER 'u'] [EXPIRES …].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateToken {
    /// What its owner calls it.
    pub name: Option<String>,
    /// Who comes by it; `None` = who makes it.
    pub user: Option<String>,
    /// Until when it is worth something; `None` = until it is dropped.
    pub expires: Option<Expiry>,
}

/// When a token expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// EXPIRES 'time'.
    At(String),
    /// EXPIRES IN 'interval'.
    In(String),
}

/// A password on its way to its hash. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Statement {
    /// What kind of statement it is, for figures of all together: one of few words.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Query(_) => "select",
            Self::Explain { .. } => "explain",
            Self::Insert(_) => "insert",
            Self::Update(_) => "update",
            Self::Delete(_) => "delete",
            Self::Merge(_) => "merge",
            Self::ShowTables { .. }
            | Self::ShowNamespaces
            | Self::Describe(_)
            | Self::ShowCreate(_)
            | Self::ShowManifest(_)
            | Self::ShowManifestCache
            | Self::ShowSetting(_) => "show",
            Self::Set { .. } | Self::UseNamespace(_) => "set",
            Self::Transaction(_) => "transaction",
            Self::RunJob { .. } | Self::CancelJob(_) | Self::CancelQuery(_) => "control",
            Self::FlushTable(_) | Self::FlushAll | Self::CompactTable(_) | Self::CheckTable(_) => "storage",
            _ => "ddl",
        }
    }

    /// What an INSERT, UPDATE or DELETE gives of the rows it has written, if not their number.
    pub(crate) fn returning(&self) -> Option<&[SelectItem]> {
        let items = match self {
            Self::Insert(insert) => &insert.returning,
            Self::Update(update) => &update.returning,
            Self::Delete(delete) => &delete.returning,
            Self::Merge(merge) => &merge.returning,
            _ => return None,
        };
        (!items.is_empty()).then_some(items)
    }

    /// Whether it gives rows (else it gives a count).
    pub(crate) fn is_query(&self) -> bool {
        match self {
            Self::Query(_)
            | Self::Explain { .. }
            | Self::ShowTables { .. }
            | Self::ShowNamespaces
            | Self::Describe(_)
            | Self::ShowCreate(_)
            | Self::ShowManifest(_)
            | Self::ShowManifestCache
            | Self::CreateToken(_)
            | Self::RunJob { .. }
            | Self::ShowSetting(_) => true,
            Self::Insert(_) | Self::Update(_) | Self::Delete(_) | Self::Merge(_) => self.returning().is_some(),
            Self::CreateNamespace { .. }
            | Self::DropNamespace { .. }
            | Self::CreateTable(_)
            | Self::CreateTableAs(_)
            | Self::DropTable { .. }
            | Self::AlterTable { .. }
            | Self::CreateView(_)
            | Self::DropView { .. }
            | Self::Comment { .. }
            | Self::CreateIndex(_)
            | Self::DropIndex { .. }
            | Self::CreateUser { .. }
            | Self::AlterUser { .. }
            | Self::DropUser { .. }
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::DropToken { .. }
            | Self::CancelJob(_)
            | Self::CancelQuery(_)
            | Self::FlushTable(_)
            | Self::FlushAll
            | Self::CompactTable(_)
            | Self::CheckTable(_)
            | Self::Set { .. }
            | Self::UseNamespace(_)
            | Self::Transaction(_) => false,
        }
    }
}
