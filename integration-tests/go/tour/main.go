// Command tour does one fixed round through ADBC's Go driver. integration-tests/python/tours.py records it.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var (
	ctx   = context.Background()
	stdin = bufio.NewReader(os.Stdin)
)

func main() {
	step("connect")
	driver := flightsql.NewDriver(memory.DefaultAllocator)
	database := must(driver.NewDatabase(map[string]string{
		adbc.OptionKeyURI:      os.Getenv("SERACDB_URI"),
		adbc.OptionKeyUsername: os.Getenv("SERACDB_USER"),
		adbc.OptionKeyPassword: os.Getenv("SERACDB_PASSWORD"),
	}))
	c := must(database.Open(ctx))

	step("create table")
	update(c, "CREATE NAMESPACE tour")
	update(c, "CREATE TABLE tour.points (x BIGINT NOT NULL, label TEXT)")
	statements(c)
	ingest(c)
	metadata(c)
	failure(c)
	transaction(c)
	session(c)

	step("close")
	check(c.Close())
	check(database.Close())
}

// step names what comes next, and waits until it has been heard.
func step(name string) {
	fmt.Println(name)
	must(stdin.ReadString('\n'))
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func equal[T comparable](got, want T) {
	if got != want {
		log.Panicf("got %v, want %v", got, want)
	}
}

func statement(c adbc.Connection, sql string) adbc.Statement {
	s := must(c.NewStatement())
	if sql != "" {
		check(s.SetSqlQuery(sql))
	}
	return s
}

func update(c adbc.Connection, sql string) int64 {
	s := statement(c, sql)
	n := must(s.ExecuteUpdate(ctx))
	check(s.Close())
	return n
}

// rows reads a result to its end.
func rows(reader array.RecordReader) (n int64) {
	defer reader.Release()
	for reader.Next() {
		n += reader.RecordBatch().NumRows()
	}
	check(reader.Err())
	return n
}

func fetch(s adbc.Statement) int64 {
	reader, _, err := s.ExecuteQuery(ctx)
	check(err)
	return rows(reader)
}

func query(c adbc.Connection, sql string) int64 {
	s := statement(c, sql)
	n := fetch(s)
	check(s.Close())
	return n
}

// points has the rows (x, label) from `from` to before `to`; with no labels it is the parameter of a query.
func points(from, to int64, labels bool) arrow.RecordBatch {
	fields := []arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Int64}}
	if labels {
		fields = append(fields, arrow.Field{Name: "label", Type: arrow.BinaryTypes.String, Nullable: true})
	}
	builder := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer builder.Release()
	for x := from; x < to; x++ {
		builder.Field(0).(*array.Int64Builder).Append(x)
		if labels {
			builder.Field(1).(*array.StringBuilder).Append(fmt.Sprint(x))
		}
	}
	return builder.NewRecordBatch()
}

func statements(c adbc.Connection) {
	step("insert with parameters")
	insert := statement(c, "INSERT INTO tour.points (x, label) VALUES (?, ?)")
	check(insert.Prepare(ctx))
	check(insert.Bind(ctx, points(1, 4, true)))
	equal(must(insert.ExecuteUpdate(ctx)), 3)
	check(insert.Close())

	step("query with parameters")
	choose := statement(c, "SELECT x, label FROM tour.points WHERE x >= ? ORDER BY x")
	check(choose.Prepare(ctx))
	check(choose.Bind(ctx, points(2, 3, false)))
	equal(fetch(choose), 2)
	check(choose.Close())

	step("query without preparing")
	equal(query(c, "SELECT x, label FROM tour.points ORDER BY x"), 3)

	step("update")
	equal(update(c, "UPDATE tour.points SET label = 'z' WHERE x > 1"), 2)

	step("update on the query path")
	query(c, "UPDATE tour.points SET label = 'z' WHERE x > 1")

	step("schema of a query")
	s := statement(c, "SELECT x, label FROM tour.points")
	equal(must(s.(adbc.StatementExecuteSchema).ExecuteSchema(ctx)).NumFields(), 2)
	check(s.Close())
}

func ingest(c adbc.Connection) {
	step("ingest")
	s := statement(c, "")
	check(s.SetOption(adbc.OptionKeyIngestMode, adbc.OptionValueIngestModeAppend))
	check(s.SetOption(adbc.OptionKeyIngestTargetTable, "points"))
	check(s.SetOption(adbc.OptionValueIngestTargetDBSchema, "tour"))
	check(s.Bind(ctx, points(10, 12, true)))
	equal(must(s.ExecuteUpdate(ctx)), 2)
	check(s.Close())
}

func metadata(c adbc.Connection) {
	namespace := "tour"
	step("catalogs")
	rows(must(c.GetObjects(ctx, adbc.ObjectDepthCatalogs, nil, nil, nil, nil, nil)))
	step("schemas")
	rows(must(c.GetObjects(ctx, adbc.ObjectDepthDBSchemas, nil, &namespace, nil, nil, nil)))
	step("tables")
	rows(must(c.GetObjects(ctx, adbc.ObjectDepthTables, nil, &namespace, nil, nil, []string{"TABLE"})))
	step("columns")
	rows(must(c.GetObjects(ctx, adbc.ObjectDepthColumns, nil, &namespace, nil, nil, nil)))
	step("schema of a table")
	must(c.GetTableSchema(ctx, nil, &namespace, "points"))
	step("table types")
	rows(must(c.GetTableTypes(ctx)))
	step("about the server")
	rows(must(c.GetInfo(ctx, []adbc.InfoCode{adbc.InfoVendorName, adbc.InfoVendorVersion})))
}

func failure(c adbc.Connection) {
	step("error")
	s := statement(c, "SELECT * FROM tour.pionts")
	_, _, err := s.ExecuteQuery(ctx)
	var refused adbc.Error
	if !errors.As(err, &refused) || refused.Code != adbc.StatusNotFound {
		log.Panicf("got %v", err)
	}
	check(s.Close())
}

func transaction(c adbc.Connection) {
	step("transaction")
	options := c.(adbc.PostInitOptions)
	check(options.SetOption(adbc.OptionKeyAutoCommit, adbc.OptionValueDisabled))
	update(c, "INSERT INTO tour.points (x) VALUES (20)")
	check(c.Rollback(ctx))
	update(c, "INSERT INTO tour.points (x) VALUES (21)")
	check(c.Commit(ctx))
	check(options.SetOption(adbc.OptionKeyAutoCommit, adbc.OptionValueEnabled))
	equal(query(c, "SELECT x FROM tour.points"), 6)
}

func session(c adbc.Connection) {
	step("session options")
	options := c.(adbc.GetSetOptions)
	check(options.SetOption(adbc.OptionKeyCurrentDbSchema, "tour"))
	equal(must(options.GetOption(adbc.OptionKeyCurrentDbSchema)), "tour")
	check(options.SetOption(flightsql.OptionEraseSessionOptionPrefix+"schema", ""))
	equal(must(options.GetOption(adbc.OptionKeyCurrentCatalog)), "seracdb")
}
