package gotests

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

const scenarioFolder = "../../clients/scenarios"

// A step of a scenario; clients/scenarios/README.md says what it means.
type step struct {
	Execute, Query, Ingest, Connect, As, Tables, Schema string
	Begin, Commit, Rollback                             bool
	Count                                               *int64
	Columns                                             [][2]string
	Rows                                                [][]any
	Types                                               []string
	Parameters                                          []any
	Batch                                               [][]any
	Mode, User, Password                                string
	Names                                               []string
	Fails, Says, Note                                   string
}

// A session is a connection with the database that it alone uses.
type session struct {
	database adbc.Database
	adbc.Connection
}

// A scenarioRun is one run of a scenario: its connections, by name.
type scenarioRun struct {
	sessions map[string]*session
	now      *session
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(scenarioFolder + "/*.json")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no scenarios in " + scenarioFolder)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			namespace := "go_scenario_" + strings.ReplaceAll(name, "-", "_")
			r := &scenarioRun{sessions: map[string]*session{}}
			defer r.close(t)
			must(t, r.connect(step{Connect: "first"}))
			_, err := r.update("CREATE NAMESPACE "+namespace, nil)
			must(t, err)
			for i, raw := range readScenario(t, file, namespace) {
				if err := r.check(raw); err != nil {
					t.Fatalf("step %d: %s\n%v", i+1, raw, err)
				}
			}
		})
	}
}

func readScenario(t *testing.T, file, namespace string) []json.RawMessage {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	var scenario struct{ Steps []json.RawMessage }
	must(t, json.Unmarshal(bytes.ReplaceAll(text, []byte("{ns}"), []byte(namespace)), &scenario))
	return scenario.Steps
}

// check runs a step and looks whether it does what the scenario says, or fails as it says.
func (r *scenarioRun) check(raw json.RawMessage) error {
	var s step
	decoder := json.NewDecoder(bytes.NewReader(raw))
	// Without it 64-bit numbers would lose digits.
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return err
	}
	err := r.run(s)
	if s.Fails == "" {
		return err
	}
	if err == nil {
		return errors.New("it did not fail")
	}
	if code := codeOf(err); code != s.Fails || !strings.Contains(err.Error(), s.Says) {
		return fmt.Errorf("got %s, %w", code, err)
	}
	return nil
}

func (r *scenarioRun) run(s step) error {
	switch {
	case s.Query != "":
		return r.query(s)
	case s.Connect != "":
		return r.connect(s)
	case s.As != "":
		r.now = r.sessions[s.As]
		return nil
	case s.Tables != "":
		return r.tables(s)
	case s.Schema != "":
		return r.schema(s)
	}
	count, err := r.change(s)
	if err == nil && s.Count != nil && *s.Count != count {
		return fmt.Errorf("changed %d rows", count)
	}
	return err
}

// change runs what gives a number of rows.
func (r *scenarioRun) change(s step) (int64, error) {
	switch {
	case s.Begin:
		return r.update("BEGIN", nil)
	case s.Commit:
		return r.update("COMMIT", nil)
	case s.Rollback:
		return r.update("ROLLBACK", nil)
	case s.Ingest != "":
		return r.ingest(s)
	case s.Execute != "":
		rows, err := s.bound()
		if err != nil {
			return 0, err
		}
		return r.update(s.Execute, rows)
	}
	return 0, errors.New("unknown step")
}

// bound gives the parameters, or nil.
func (s step) bound() (arrow.RecordBatch, error) {
	if s.Types == nil {
		return nil, nil
	}
	rows := s.Batch
	if rows == nil {
		rows = [][]any{s.Parameters}
	}
	names := make([]string, len(s.Types))
	for i := range names {
		names[i] = strconv.Itoa(i + 1)
	}
	return recordOf(names, s.Types, rows)
}

// prepared gives a statement with its parameters bound.
func (r *scenarioRun) prepared(sql string, rows arrow.RecordBatch) (adbc.Statement, error) {
	s, err := r.now.NewStatement()
	if err != nil {
		return nil, err
	}
	err = s.SetSqlQuery(sql)
	if err == nil && rows != nil {
		if err = s.Prepare(ctx); err == nil {
			err = s.Bind(ctx, rows)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (r *scenarioRun) update(sql string, rows arrow.RecordBatch) (int64, error) {
	s, err := r.prepared(sql, rows)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	return s.ExecuteUpdate(ctx)
}

func (r *scenarioRun) query(step step) error {
	parameters, err := step.bound()
	if err != nil {
		return err
	}
	s, err := r.prepared(step.Query, parameters)
	if err != nil {
		return err
	}
	defer s.Close()
	reader, _, err := s.ExecuteQuery(ctx)
	if err != nil {
		return err
	}
	defer reader.Release()
	rows := [][]string{}
	for reader.Next() {
		rows = append(rows, shownRows(reader.RecordBatch())...)
	}
	if err := reader.Err(); err != nil {
		return err
	}
	if columns := columnsOf(reader.Schema()); !slices.Equal(columns, step.Columns) {
		return fmt.Errorf("got columns %v", columns)
	}
	return step.compare(rows)
}

// compare holds a result against the rows of the step, which pass through Arrow in the same way.
func (s step) compare(rows [][]string) error {
	names, types := unzip(s.Columns)
	record, err := recordOf(names, types, s.Rows)
	if err != nil {
		return err
	}
	if wanted := shownRows(record); !reflect.DeepEqual(rows, wanted) {
		return fmt.Errorf("got %v\nwant %v", rows, wanted)
	}
	return nil
}

func (r *scenarioRun) ingest(step step) (int64, error) {
	names, types := unzip(step.Columns)
	record, err := recordOf(names, types, step.Rows)
	if err != nil {
		return 0, err
	}
	s, err := r.now.NewStatement()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	namespace, table, _ := strings.Cut(step.Ingest, ".")
	options := map[string]string{
		adbc.OptionKeyIngestMode:             "adbc.ingest.mode." + step.Mode,
		adbc.OptionKeyIngestTargetTable:      table,
		adbc.OptionValueIngestTargetDBSchema: namespace,
	}
	for key, value := range options {
		if err := s.SetOption(key, value); err != nil {
			return 0, err
		}
	}
	if err := s.Bind(ctx, record); err != nil {
		return 0, err
	}
	return s.ExecuteUpdate(ctx)
}

func (r *scenarioRun) connect(s step) error {
	if old := r.sessions[s.Connect]; old != nil {
		delete(r.sessions, s.Connect)
		if err := old.close(); err != nil {
			return err
		}
	}
	user, password := s.User, s.Password
	if user == "" {
		user, password = os.Getenv("SERACDB_USER"), os.Getenv("SERACDB_PASSWORD")
	}
	made, err := newSession(user, password)
	if err != nil {
		return err
	}
	r.sessions[s.Connect] = made
	r.now = made
	// The driver may log in only when it must.
	_, err = r.update("SELECT 1", nil)
	return err
}

func newSession(user, password string) (*session, error) {
	driver := flightsql.NewDriver(memory.DefaultAllocator)
	database, err := driver.NewDatabase(map[string]string{
		adbc.OptionKeyURI:      os.Getenv("SERACDB_URI"),
		adbc.OptionKeyUsername: user,
		adbc.OptionKeyPassword: password,
	})
	if err != nil {
		return nil, err
	}
	connection, err := database.Open(ctx)
	if err != nil {
		return nil, errors.Join(err, database.Close())
	}
	return &session{database, connection}, nil
}

func (s *session) close() error {
	return errors.Join(s.Connection.Close(), s.database.Close())
}

func (r *scenarioRun) close(t *testing.T) {
	for _, s := range r.sessions {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}

func (r *scenarioRun) tables(s step) error {
	reader, err := r.now.GetObjects(ctx, adbc.ObjectDepthTables, nil, &s.Tables, nil, nil, nil)
	if err != nil {
		return err
	}
	defer reader.Release()
	names := []string{}
	for reader.Next() {
		schemas := reader.RecordBatch().Column(1).(*array.List).ListValues().(*array.Struct)
		tables := schemas.Field(1).(*array.List).ListValues().(*array.Struct)
		for row := range tables.Len() {
			names = append(names, tables.Field(0).ValueStr(row))
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, s.Names) {
		return fmt.Errorf("got %v", names)
	}
	return reader.Err()
}

func (r *scenarioRun) schema(s step) error {
	namespace, table, _ := strings.Cut(s.Schema, ".")
	schema, err := r.now.GetTableSchema(ctx, nil, &namespace, table)
	if err != nil {
		return err
	}
	if columns := columnsOf(schema); !slices.Equal(columns, s.Columns) {
		return fmt.Errorf("got %v", columns)
	}
	return nil
}

// The driver's errors end in "(NotFound; Prepare)"; ADBC's own codes do not tell all of gRPC's.
var said = regexp.MustCompile(`\(([A-Z]\w+); [^;]*$`)
var wordStart = regexp.MustCompile(`([a-z])([A-Z])`)

func codeOf(err error) string {
	found := said.FindStringSubmatch(err.Error())
	if found == nil {
		return "no code"
	}
	code := strings.ToUpper(wordStart.ReplaceAllString(found[1], "${1}_${2}"))
	return code
}

func unzip(columns [][2]string) (names, types []string) {
	for _, column := range columns {
		names, types = append(names, column[0]), append(types, column[1])
	}
	return names, types
}

var scenarioTypes = map[string]arrow.DataType{
	"boolean":     arrow.FixedWidthTypes.Boolean,
	"int":         arrow.PrimitiveTypes.Int32,
	"bigint":      arrow.PrimitiveTypes.Int64,
	"double":      arrow.PrimitiveTypes.Float64,
	"text":        arrow.BinaryTypes.String,
	"binary":      arrow.BinaryTypes.Binary,
	"date":        arrow.FixedWidthTypes.Date32,
	"timestamp":   &arrow.TimestampType{Unit: arrow.Microsecond},
	"timestamptz": arrow.FixedWidthTypes.Timestamp_us,
}

func typeOf(kind string) (arrow.DataType, error) {
	if known := scenarioTypes[kind]; known != nil {
		return known, nil
	}
	decimal := &arrow.Decimal128Type{}
	_, err := fmt.Sscanf(kind, "decimal(%d,%d)", &decimal.Precision, &decimal.Scale)
	return decimal, err
}

// columnsOf gives names and types as the scenarios have them; they do not tell units of time.
func columnsOf(schema *arrow.Schema) [][2]string {
	columns := [][2]string{}
	for _, field := range schema.Fields() {
		columns = append(columns, [2]string{field.Name, typeName(field.Type)})
	}
	return columns
}

func typeName(found arrow.DataType) string {
	switch t := found.(type) {
	case *arrow.Decimal128Type:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return "timestamptz"
		}
		return "timestamp"
	}
	for name, known := range scenarioTypes {
		if arrow.TypeEqual(known, found) {
			return name
		}
	}
	return found.String()
}

func recordOf(names, types []string, rows [][]any) (arrow.RecordBatch, error) {
	fields := make([]arrow.Field, len(names))
	for i, name := range names {
		found, err := typeOf(types[i])
		if err != nil {
			return nil, err
		}
		fields[i] = arrow.Field{Name: name, Type: found, Nullable: true}
	}
	builder := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer builder.Release()
	for _, row := range rows {
		for i, value := range row {
			if err := appendValue(builder.Field(i), value); err != nil {
				return nil, fmt.Errorf("%v as %s: %w", value, types[i], err)
			}
		}
	}
	return builder.NewRecordBatch(), nil
}

func appendValue(to array.Builder, value any) error {
	if value == nil {
		to.AppendNull()
		return nil
	}
	if b, is := value.(bool); is {
		to.(*array.BooleanBuilder).Append(b)
		return nil
	}
	text := fmt.Sprint(value)
	switch to := to.(type) {
	case *array.StringBuilder:
		to.Append(text)
		return nil
	case *array.BinaryBuilder:
		data, err := hex.DecodeString(text)
		to.Append(data)
		return err
	case *array.Decimal128Builder:
		t := to.Type().(*arrow.Decimal128Type)
		number, err := decimal128.FromString(text, t.Precision, t.Scale)
		to.Append(number)
		return err
	case *array.TimestampBuilder:
		at, err := time.Parse("2006-01-02T15:04:05.000000", strings.TrimSuffix(text, "Z"))
		to.Append(arrow.Timestamp(at.UnixMicro()))
		return err
	default:
		return to.AppendValueFromString(text)
	}
}

// shownRows gives values as text, in which NaN equals NaN and -0.0 is not 0.0.
func shownRows(record arrow.RecordBatch) [][]string {
	rows := make([][]string, record.NumRows())
	for row := range rows {
		for _, column := range record.Columns() {
			rows[row] = append(rows[row], shownValue(column, row))
		}
	}
	return rows
}

func shownValue(column arrow.Array, row int) string {
	if column.IsNull(row) {
		return "NULL"
	}
	switch column := column.(type) {
	case *array.String:
		return strconv.Quote(column.Value(row))
	case *array.Binary:
		return hex.EncodeToString(column.Value(row))
	case *array.Float64:
		value := column.Value(row)
		return fmt.Sprint(math.Signbit(value), value)
	case *array.Timestamp:
		unit := column.DataType().(*arrow.TimestampType).Unit
		return column.Value(row).ToTime(unit).UTC().Format(time.RFC3339Nano)
	}
	return column.ValueStr(row)
}
