// Package gotests drives SeracDB through ADBC's Go driver, beside a server that scripts/testserver.py has started.
package gotests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var ctx = context.Background()

func open(t *testing.T, user, password string) (adbc.Connection, error) {
	t.Helper()
	uri := os.Getenv("SERACDB_URI")
	if uri == "" {
		t.Fatal("SERACDB_URI is not set: run beside scripts/testserver.py")
	}
	driver := flightsql.NewDriver(memory.DefaultAllocator)
	database, err := driver.NewDatabase(map[string]string{
		adbc.OptionKeyURI:      uri,
		adbc.OptionKeyUsername: user,
		adbc.OptionKeyPassword: password,
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { must(t, database.Close()) })
	connection, err := database.Open(ctx)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { must(t, connection.Close()) })
	return connection, nil
}

// connect opens a connection of root and makes the namespace, with a table points (x BIGINT NOT NULL, label TEXT).
func connect(t *testing.T, namespace string) adbc.Connection {
	t.Helper()
	connection, err := open(t, os.Getenv("SERACDB_USER"), os.Getenv("SERACDB_PASSWORD"))
	must(t, err)
	run(t, connection, "CREATE NAMESPACE "+namespace)
	run(t, connection, "CREATE TABLE "+namespace+".points (x BIGINT NOT NULL, label TEXT)")
	return connection
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func statement(t *testing.T, connection adbc.Connection, sql string) adbc.Statement {
	t.Helper()
	s, err := connection.NewStatement()
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	if sql != "" {
		must(t, s.SetSqlQuery(sql))
	}
	return s
}

// run executes an update without preparing it and returns the number of rows.
func run(t *testing.T, connection adbc.Connection, sql string) int64 {
	t.Helper()
	n, err := statement(t, connection, sql).ExecuteUpdate(ctx)
	must(t, err)
	return n
}

// text reads a whole result, one line per row.
func text(t *testing.T, reader array.RecordReader) string {
	t.Helper()
	defer reader.Release()
	var rows []string
	for reader.Next() {
		batch := reader.RecordBatch()
		for row := range int(batch.NumRows()) {
			var values []string
			for _, column := range batch.Columns() {
				values = append(values, column.ValueStr(row))
			}
			rows = append(rows, strings.Join(values, " "))
		}
	}
	if err := reader.Err(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return strings.Join(rows, "\n")
}

func query(t *testing.T, connection adbc.Connection, sql string) string {
	t.Helper()
	reader, _, err := statement(t, connection, sql).ExecuteQuery(ctx)
	must(t, err)
	return text(t, reader)
}

func equal[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func points(t *testing.T, from, to int64) arrow.RecordBatch {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "x", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "label", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer builder.Release()
	for x := from; x < to; x++ {
		builder.Field(0).(*array.Int64Builder).Append(x)
		if x%5 == 0 {
			builder.Field(1).(*array.StringBuilder).AppendNull()
		} else {
			builder.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("label %d", x))
		}
	}
	return builder.NewRecordBatch()
}

func TestQueryAndUpdate(t *testing.T) {
	c := connect(t, "go_basic")
	equal(t, run(t, c, "INSERT INTO go_basic.points (x, label) VALUES (1, 'a'), (2, NULL), (3, 'c')"), 3)
	equal(t, run(t, c, "UPDATE go_basic.points SET label = 'z' WHERE x > 1"), 2)
	run(t, c, "STORAGE FLUSH TABLE go_basic.points")
	equal(t, run(t, c, "DELETE FROM go_basic.points WHERE x = 1"), 1)
	equal(t, query(t, c, "SELECT x, label FROM go_basic.points ORDER BY x"), "2 z\n3 z")
	equal(t, query(t, c, "SELECT x FROM go_basic.points WHERE x < 0"), "")
}

func TestWrongPassword(t *testing.T) {
	c, err := open(t, "root", "wrong")
	if err == nil {
		_, _, err = statement(t, c, "SELECT 1").ExecuteQuery(ctx)
	}
	var refused adbc.Error
	if !errors.As(err, &refused) || refused.Code != adbc.StatusUnauthenticated {
		t.Fatalf("got %v", err)
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	c := connect(t, "go_errors")
	for sql, code := range map[string]adbc.Status{
		"SELEC":                                 adbc.StatusInvalidArgument,
		"SELECT * FROM go_errors.pionts":        adbc.StatusNotFound,
		"CREATE TABLE go_errors.points (x INT)": adbc.StatusAlreadyExists,
		"UPDATE go_errors.points SET _id = 1":   adbc.StatusInvalidArgument,
	} {
		for _, path := range []string{"query", "update"} {
			s := statement(t, c, sql)
			var err error
			if path == "query" {
				_, _, err = s.ExecuteQuery(ctx)
			} else {
				_, err = s.ExecuteUpdate(ctx)
			}
			var refused adbc.Error
			if !errors.As(err, &refused) || refused.Code != code {
				t.Errorf("%s by %s: got %v, want %v", sql, path, err, code)
			}
		}
	}
}

func TestPreparedWithBind(t *testing.T) {
	c := connect(t, "go_prepared")
	insert := statement(t, c, "INSERT INTO go_prepared.points (x, label) VALUES (?, ?)")
	must(t, insert.Prepare(ctx))
	parameters, err := insert.GetParameterSchema()
	must(t, err)
	equal(t, parameters.NumFields(), 2)
	equal(t, parameters.Field(0).Type.ID(), arrow.INT64)
	equal(t, parameters.Field(1).Type.ID(), arrow.STRING)
	for _, from := range []int64{0, 100} {
		batch := points(t, from, from+100)
		must(t, insert.Bind(ctx, batch))
		batch.Release()
		n, err := insert.ExecuteUpdate(ctx)
		must(t, err)
		equal(t, n, 100)
	}

	choose := statement(t, c, "SELECT label FROM go_prepared.points WHERE x = $1")
	must(t, choose.Prepare(ctx))
	for _, x := range []int64{1, 42, 199} {
		batch := points(t, x, x+1)
		only := array.NewRecordBatch(
			arrow.NewSchema([]arrow.Field{{Name: "1", Type: arrow.PrimitiveTypes.Int64}}, nil),
			[]arrow.Array{batch.Column(0)}, 1)
		must(t, choose.Bind(ctx, only))
		reader, _, err := choose.ExecuteQuery(ctx)
		must(t, err)
		equal(t, text(t, reader), fmt.Sprintf("label %d", x))
		only.Release()
		batch.Release()
	}
}

func TestIngest(t *testing.T) {
	c := connect(t, "go_ingest")
	ingest := func(table, mode string) (int64, error) {
		s := statement(t, c, "")
		must(t, s.SetOption(adbc.OptionKeyIngestMode, mode))
		must(t, s.SetOption(adbc.OptionKeyIngestTargetTable, table))
		must(t, s.SetOption(adbc.OptionValueIngestTargetDBSchema, "go_ingest"))
		batch := points(t, 0, 1000)
		defer batch.Release()
		must(t, s.Bind(ctx, batch))
		return s.ExecuteUpdate(ctx)
	}
	n, err := ingest("made", adbc.OptionValueIngestModeCreate)
	must(t, err)
	equal(t, n, 1000)
	if _, err = ingest("made", adbc.OptionValueIngestModeCreate); err == nil {
		t.Fatal("a table was created twice")
	}
	_, err = ingest("made", adbc.OptionValueIngestModeAppend)
	must(t, err)
	equal(t, query(t, c, "SELECT count(*), sum(x), count(label) FROM go_ingest.made"), "2000 999000 1600")
	_, err = ingest("made", adbc.OptionValueIngestModeReplace)
	must(t, err)
	_, err = ingest("made", adbc.OptionValueIngestModeCreateAppend)
	must(t, err)
	run(t, c, "STORAGE FLUSH TABLE go_ingest.made")
	equal(t, query(t, c, "SELECT count(*), sum(x), count(label) FROM go_ingest.made"), "2000 999000 1600")
}

func TestMetadata(t *testing.T) {
	c := connect(t, "go_meta")
	run(t, c, "CREATE TABLE go_meta.t_1 (wanted TEXT)")
	run(t, c, "CREATE TABLE go_meta.tx1 (other TEXT)")

	info, err := c.GetInfo(ctx, []adbc.InfoCode{adbc.InfoVendorName, adbc.InfoVendorVersion, adbc.InfoVendorArrowVersion})
	must(t, err)
	if facts := text(t, info); !strings.Contains(facts, "SeracDB") {
		t.Fatal(facts)
	}

	namespace := "go_meta"
	objects, err := c.GetObjects(ctx, adbc.ObjectDepthAll, nil, &namespace, nil, nil, nil)
	must(t, err)
	all := text(t, objects)
	for _, wanted := range []string{"seracdb", "go_meta", "points", "t_1", "tx1", "_updated"} {
		if !strings.Contains(all, wanted) {
			t.Errorf("GetObjects does not show %s: %s", wanted, all)
		}
	}
	types, err := c.GetTableTypes(ctx)
	must(t, err)
	if text(t, types) == "" {
		t.Error("no table types")
	}

	// The driver passes the name as a pattern, in which `_` is any character.
	schema, err := c.GetTableSchema(ctx, nil, &namespace, "t_1")
	must(t, err)
	if len(schema.FieldIndices("wanted")) != 1 {
		t.Error(schema)
	}
	missing := "no_such_table"
	if _, err := c.GetTableSchema(ctx, nil, &namespace, missing); err == nil {
		t.Error("a table that is not there has a schema")
	}
}

func TestExecuteSchemaIsTheSchemaOfTheResult(t *testing.T) {
	c := connect(t, "go_schema")
	run(t, c, "INSERT INTO go_schema.points (x, label) VALUES (1, 'a')")
	s := statement(t, c, "SELECT x, label, x * 1.5 AS y, count(*) OVER () AS n FROM go_schema.points")
	schema, err := s.(adbc.StatementExecuteSchema).ExecuteSchema(ctx)
	must(t, err)
	reader, n, err := s.ExecuteQuery(ctx)
	must(t, err)
	defer reader.Release()
	if !reader.Schema().Equal(schema) {
		t.Fatalf("announced %v, got %v", schema, reader.Schema())
	}
	if n != 1 && n != -1 {
		t.Fatalf("one row, announced as %d", n)
	}
}

func TestDmlByExecuteQueryRunsOnce(t *testing.T) {
	c := connect(t, "go_once")
	s := statement(t, c, "INSERT INTO go_once.points (x) VALUES (1)")
	reader, _, err := s.ExecuteQuery(ctx)
	must(t, err)
	text(t, reader)
	equal(t, query(t, c, "SELECT count(*) FROM go_once.points"), "1")
}
