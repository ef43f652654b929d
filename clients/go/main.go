// Command example connects to SeracDB through ADBC's Go driver: it creates a table, ingests, queries, changes rows in a
// transaction, and tells errors apart. It reads SERACDB_URI, SERACDB_USER and SERACDB_PASSWORD.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	driver := flightsql.NewDriver(memory.DefaultAllocator)
	database, err := driver.NewDatabase(map[string]string{
		adbc.OptionKeyURI:      os.Getenv("SERACDB_URI"),
		adbc.OptionKeyUsername: os.Getenv("SERACDB_USER"),
		adbc.OptionKeyPassword: os.Getenv("SERACDB_PASSWORD"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	connection, err := database.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()

	for _, step := range []func(context.Context, adbc.Connection) error{create, ingest, query, transaction, failure} {
		if err := step(ctx, connection); err != nil {
			return err
		}
	}
	return nil
}

// update runs a statement that gives no rows, and returns the number of rows it changed.
func update(ctx context.Context, c adbc.Connection, sql string) (count int64, err error) {
	statement, err := c.NewStatement()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, statement.Close()) }()
	if err := statement.SetSqlQuery(sql); err != nil {
		return 0, err
	}
	return statement.ExecuteUpdate(ctx)
}

func create(ctx context.Context, c adbc.Connection) error {
	for _, sql := range []string{
		"CREATE NAMESPACE IF NOT EXISTS go_example",
		"DROP TABLE IF EXISTS go_example.peaks",
		"CREATE TABLE go_example.peaks (name TEXT NOT NULL, metres INT)",
	} {
		if _, err := update(ctx, c, sql); err != nil {
			return err
		}
	}
	return nil
}

// ingest is the fastest way in. Columns match by name, and all rows are one commit.
func ingest(ctx context.Context, c adbc.Connection) (err error) {
	builder := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "metres", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	}, nil))
	defer builder.Release()
	builder.Field(0).(*array.StringBuilder).AppendValues([]string{"Eiger", "Jungfrau", "Mönch"}, nil)
	builder.Field(1).(*array.Int32Builder).AppendValues([]int32{3967, 4158, 4107}, nil)
	batch := builder.NewRecordBatch()
	defer batch.Release()

	statement, err := c.NewStatement()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, statement.Close()) }()
	for key, value := range map[string]string{
		adbc.OptionKeyIngestMode:             adbc.OptionValueIngestModeAppend,
		adbc.OptionKeyIngestTargetTable:      "peaks",
		adbc.OptionValueIngestTargetDBSchema: "go_example",
	} {
		if err := statement.SetOption(key, value); err != nil {
			return err
		}
	}
	if err := statement.Bind(ctx, batch); err != nil {
		return err
	}
	count, err := statement.ExecuteUpdate(ctx)
	fmt.Println("ingested", count)
	return err
}

// query binds a parameter: a batch with one row, and one column for each `?`.
func query(ctx context.Context, c adbc.Connection) (err error) {
	statement, err := c.NewStatement()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, statement.Close()) }()
	sql := "SELECT name, metres FROM go_example.peaks WHERE metres > ? ORDER BY metres DESC"
	if err := errors.Join(statement.SetSqlQuery(sql), statement.Prepare(ctx)); err != nil {
		return err
	}
	parameter := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "1", Type: arrow.PrimitiveTypes.Int32},
	}, nil))
	defer parameter.Release()
	parameter.Field(0).(*array.Int32Builder).Append(4000)
	if err := statement.Bind(ctx, parameter.NewRecordBatch()); err != nil {
		return err
	}
	reader, _, err := statement.ExecuteQuery(ctx)
	if err != nil {
		return err
	}
	defer reader.Release()
	for reader.Next() {
		batch := reader.RecordBatch()
		names, metres := batch.Column(0).(*array.String), batch.Column(1).(*array.Int32)
		for row := range int(batch.NumRows()) {
			fmt.Println(names.Value(row), metres.Value(row))
		}
	}
	return reader.Err()
}

// transaction turns autocommit off: nothing stands before Commit. A commit that another one came before is undone, and
// can be run again.
func transaction(ctx context.Context, c adbc.Connection) (err error) {
	options := c.(adbc.PostInitOptions)
	if err := options.SetOption(adbc.OptionKeyAutoCommit, adbc.OptionValueDisabled); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, options.SetOption(adbc.OptionKeyAutoCommit, adbc.OptionValueEnabled))
	}()
	if _, err := update(ctx, c, "DELETE FROM go_example.peaks"); err != nil {
		return err
	}
	if err := c.Rollback(ctx); err != nil {
		return err
	}
	for {
		count, err := update(ctx, c, "UPDATE go_example.peaks SET metres = 4110 WHERE name = 'Mönch'")
		if err == nil {
			err = c.Commit(ctx)
		}
		if isConflict(err) {
			continue
		}
		fmt.Println("updated", count)
		return err
	}
}

// isConflict: ADBC has no code of its own for it, so that only the text tells gRPC's.
func isConflict(err error) bool {
	return err != nil && strings.Contains(err.Error(), "(Aborted; ")
}

func failure(ctx context.Context, c adbc.Connection) error {
	_, err := update(ctx, c, "DELETE FROM go_example.paeks")
	var refused adbc.Error
	if errors.As(err, &refused) && refused.Code == adbc.StatusNotFound {
		fmt.Println("not found")
		return nil
	}
	return errors.Join(errors.New("a table that is not there was changed"), err)
}
