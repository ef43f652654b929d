//! arrow-flight's own Flight SQL client, which binds and executes in ways of its own.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, ProstMessageExt};
use arrow_flight::sql::{CommandGetTables, CommandStatementIngest, EndTransaction, SqlInfo};
use arrow_flight::sql::{TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use arrow_flight::{Action, Criteria, FlightEndpoint, FlightInfo, RenewFlightEndpointRequest};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use seracdb_client::{Code, IngestMode, Transaction};
use seracdb_integration_tests::{PASSWORD, TestServer};
use tonic::transport::Channel;

type Client = FlightSqlServiceClient<Channel>;

async fn connect(server: &TestServer) -> Client {
    let uri = server.uri().replace("grpc://", "http://");
    let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake("root", PASSWORD).await.unwrap();
    client
}

async fn fetch(client: &mut Client, info: FlightInfo) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    for endpoint in info.endpoint {
        let stream = client.do_get(endpoint.ticket.unwrap()).await.unwrap();
        batches.extend(stream.try_collect::<Vec<_>>().await.unwrap());
    }
    batches
}

async fn numbers(client: &mut Client, sql: &str) -> Vec<i64> {
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    let batches = fetch(client, info).await;
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn rows(numbers: Vec<i64>) -> RecordBatch {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.iter().map(|n| format!("name {n}"))));
    let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
    RecordBatch::try_from_iter([("n", numbers), ("name", names)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_prepared_statements_and_ingest() {
    let server = TestServer::start();
    let mut client = connect(&server).await;
    assert_eq!(client.execute_update("CREATE TABLE t (n BIGINT, name TEXT)".into(), None).await.unwrap(), 0);

    let mut insert = client.prepare("INSERT INTO t VALUES (?, ?)".into(), None).await.unwrap();
    insert.set_parameters(rows(vec![1, 2, 3])).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 3);
    insert.set_parameters(rows(vec![4])).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 1);
    insert.close().await.unwrap();

    let mut update = client.prepare("UPDATE t SET name = ? WHERE n = ?".into(), None).await.unwrap();
    let values: [(&str, ArrayRef); 2] =
        [("name", Arc::new(StringArray::from(vec!["new"]))), ("n", Arc::new(Int64Array::from(vec![2])))];
    update.set_parameters(RecordBatch::try_from_iter(values).unwrap()).unwrap();
    assert_eq!(update.execute_update().await.unwrap(), 1);
    update.close().await.unwrap();

    let mut select = client.prepare("SELECT n FROM t WHERE name = $1".into(), None).await.unwrap();
    for (name, expected) in [("new", vec![2]), ("name 4", vec![4]), ("none", vec![])] {
        let value: ArrayRef = Arc::new(StringArray::from(vec![name]));
        select.set_parameters(RecordBatch::try_from_iter([("$1", value)]).unwrap()).unwrap();
        let info = select.execute().await.unwrap();
        let batches = fetch(&mut client, info).await;
        let found: Vec<i64> =
            batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(found, expected, "{name}");
    }
    select.close().await.unwrap();

    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail.into(),
            if_exists: TableExistsOption::Append.into(),
        }),
        table: "t".into(),
        ..Default::default()
    };
    let batches = futures::stream::iter([Ok::<_, FlightError>(rows(vec![5, 6]))]).boxed();
    assert_eq!(client.execute_ingest(command, batches).await.unwrap(), 2);
    assert_eq!(numbers(&mut client, "SELECT n FROM t ORDER BY n").await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(client.execute_update("DELETE FROM t WHERE n > 4".into(), None).await.unwrap(), 2);
    assert_eq!(numbers(&mut client, "SELECT count(*) FROM t").await, [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata() {
    let server = TestServer::start();
    let mut client = connect(&server).await;
    client.execute_update("CREATE NAMESPACE app".into(), None).await.unwrap();
    client.execute_update("CREATE TABLE app.t (n BIGINT)".into(), None).await.unwrap();

    let info = client.get_catalogs().await.unwrap();
    let catalogs = fetch(&mut client, info).await;
    assert_eq!(catalogs[0].column(0).as_string::<i32>().value(0), "seracdb");

    let schemas = CommandGetDbSchemas { db_schema_filter_pattern: Some("ap%".into()), ..Default::default() };
    let info = client.get_db_schemas(schemas).await.unwrap();
    let schemas = fetch(&mut client, info).await;
    assert_eq!(schemas[0].column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["app"]);

    let tables = CommandGetTables { include_schema: true, table_types: vec!["TABLE".into()], ..Default::default() };
    let info = client.get_tables(tables).await.unwrap();
    let tables = fetch(&mut client, info).await;
    assert_eq!(tables[0].num_columns(), 5);
    assert_eq!(tables[0].column(2).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["t"]);

    let info =
        client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerTransaction]).await.unwrap();
    let info = fetch(&mut client, info).await;
    assert_eq!(info[0].num_rows(), 2);
    let value = info[0].column(1).as_union().value(1);
    assert_eq!(value.as_primitive::<Int32Type>().value(0), 2, "transactions with savepoints");
    let transaction = client.begin_transaction().await.unwrap();
    client.execute_update("DELETE FROM app.t".into(), Some(transaction.clone())).await.unwrap();
    client.end_transaction(transaction, EndTransaction::Rollback).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_the_same_wherever_it_is_asked_for() {
    let server = TestServer::start();
    let mut client = connect(&server).await;
    client.execute_update("CREATE TABLE t (n BIGINT NOT NULL, l INT[])".into(), None).await.unwrap();
    for sql in ["SELECT * FROM t", "SELECT n + 1 AS m, l FROM t", "SELECT count(*), max(n) FROM t", "SELECT 'x' AS x"] {
        let mut prepared = client.prepare(sql.into(), None).await.unwrap();
        let from_prepare = prepared.dataset_schema().unwrap().clone();
        let info = prepared.execute().await.unwrap();
        let from_info = info.clone().try_decode_schema().unwrap();
        let stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
        let mut stream = std::pin::pin!(stream);
        while stream.try_next().await.unwrap().is_some() {}
        let from_data = stream.schema().unwrap().as_ref().clone();
        assert_eq!(from_prepare, from_info, "{sql}");
        assert_eq!(from_info, from_data, "{sql}");
    }
}

fn authorized<T>(message: T) -> tonic::Request<T> {
    use base64::Engine as _;
    let credentials = base64::prelude::BASE64_STANDARD.encode(format!("root:{PASSWORD}"));
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Basic {credentials}").parse().unwrap());
    request
}

/// What the client above has no calls for.
#[tokio::test(flavor = "multi_thread")]
async fn polling_listing_and_renewing() {
    let server = TestServer::start();
    let mut client = connect(&server).await;
    client.execute_update("CREATE TABLE \"A b\" (n BIGINT)".into(), None).await.unwrap();
    client.execute_update("INSERT INTO \"A b\" VALUES (7)".into(), None).await.unwrap();
    let channel = Channel::from_shared(server.uri().replace("grpc://", "http://")).unwrap().connect().await.unwrap();
    let mut raw = FlightServiceClient::new(channel);

    // Every table, with the query that reads it.
    let flights = raw.list_flights(authorized(Criteria { expression: "default.".into() })).await.unwrap();
    let flights: Vec<FlightInfo> = flights.into_inner().try_collect().await.unwrap();
    let [flight] = &flights[..] else { panic!("{flights:?}") };
    let none = raw.list_flights(authorized(Criteria { expression: "other.".into() })).await.unwrap();
    assert_eq!(none.into_inner().count().await, 0);

    // There is nothing to wait for.
    let descriptor = flight.flight_descriptor.clone().unwrap();
    let poll = raw.poll_flight_info(authorized(descriptor)).await.unwrap().into_inner();
    assert_eq!((poll.progress, poll.flight_descriptor), (Some(1.0), None));
    let info = poll.info.unwrap();
    assert_eq!(info.schema, flight.schema);
    let endpoint = info.endpoint[0].clone();
    let before = endpoint.expiration_time.unwrap();

    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let body = RenewFlightEndpointRequest { endpoint: Some(endpoint.clone()) }.encode_to_vec();
    let action = |body: Vec<u8>| authorized(Action { r#type: "RenewFlightEndpoint".into(), body: body.into() });
    let mut results = raw.do_action(action(body)).await.unwrap().into_inner();
    let renewed = FlightEndpoint::decode(results.message().await.unwrap().unwrap().body).unwrap();
    let after = renewed.expiration_time.unwrap();
    assert!((after.seconds, after.nanos) > (before.seconds, before.nanos));
    assert_eq!(renewed.ticket, endpoint.ticket);
    let stream = raw.do_get(authorized(renewed.ticket.unwrap())).await.unwrap();
    assert_eq!(stream.into_inner().count().await, 2, "the schema and one batch");

    let nothing = RenewFlightEndpointRequest { endpoint: None }.encode_to_vec();
    for (body, code) in [(nothing, tonic::Code::InvalidArgument), (vec![0xff], tonic::Code::InvalidArgument)] {
        assert_eq!(raw.do_action(action(body)).await.unwrap_err().code(), code);
    }
    let ticket =
        arrow_flight::sql::TicketStatementQuery { statement_handle: vec![10, 16].into_iter().chain([7; 16]).collect() };
    let ticket = arrow_flight::Ticket::new(ticket.as_any().encode_to_vec());
    let foreign = FlightEndpoint { ticket: Some(ticket), ..Default::default() };
    let foreign = RenewFlightEndpointRequest { endpoint: Some(foreign) }.encode_to_vec();
    assert_eq!(raw.do_action(action(foreign)).await.unwrap_err().code(), tonic::Code::NotFound);
}

/// Through the project's own client.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_our_client() {
    let server = TestServer::start();
    let client = server.client().await;
    client.update("CREATE TABLE t (n BIGINT)").await.unwrap();
    let count = async |sql: &str| client.query(sql).await.unwrap().collect().await.unwrap()[0].num_rows();

    let transaction = client.begin().await.unwrap();
    assert_eq!(transaction.update("INSERT INTO t VALUES (1), (2)").await.unwrap(), 2);
    let savepoint = transaction.savepoint("two").await.unwrap();
    transaction.update("DELETE FROM t").await.unwrap();
    transaction.rollback_to(&savepoint).await.unwrap();
    transaction.release(savepoint.clone()).await.unwrap();
    assert_eq!(transaction.rollback_to(&savepoint).await.unwrap_err().code(), Code::NotFound);
    let prepared = transaction.prepare("SELECT n FROM t").await.unwrap();
    assert_eq!(prepared.query().await.unwrap().collect().await.unwrap()[0].num_rows(), 2);
    let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![3])) as ArrayRef)]).unwrap();
    let (schema, batches) = (batch.schema(), futures::stream::iter([Ok(batch)]));
    assert_eq!(transaction.ingest("t", schema, batches, IngestMode::Append).await.unwrap(), 1);
    assert!(client.query("SELECT n FROM t").await.unwrap().collect().await.unwrap().is_empty());
    let id = transaction.id().clone();
    transaction.commit().await.unwrap();
    assert_eq!(count("SELECT n FROM t").await, 3);
    // Whoever lost the answer asks again.
    Transaction::resume(&client, id.clone()).commit().await.unwrap();
    assert_eq!(Transaction::resume(&client, id).rollback().await.unwrap_err().code(), Code::NotFound);

    let undone = client.begin().await.unwrap();
    undone.update("DELETE FROM t").await.unwrap();
    undone.rollback().await.unwrap();
    assert_eq!(count("SELECT n FROM t").await, 3);

    // The first to commit wins.
    let (first, second) = (client.begin().await.unwrap(), client.begin().await.unwrap());
    for transaction in [&first, &second] {
        transaction.update("UPDATE t SET n = n + 1 WHERE n = 1").await.unwrap();
    }
    first.commit().await.unwrap();
    assert_eq!(second.commit().await.unwrap_err().code(), Code::Aborted);
}
