//! What errors tell a user who may change the rows of a table, and not read them.

use seracdb_client::Client;
use seracdb_integration_tests::TestServer;

const QUIET: &str = "a quiet pass phrase";

async fn refused(client: &Client, sql: &str) -> String {
    client.update(sql).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_rows_that_may_not_be_read_tells_nothing_of_them() {
    let server = TestServer::start();
    let root = server.client().await;
    root.update(&format!("CREATE USER ann WITH PASSWORD '{QUIET}'")).await.unwrap();
    for sql in [
        "CREATE TABLE keyed (a INT, code TEXT, PRIMARY KEY (a, code))",
        "INSERT INTO keyed VALUES (1, 'alpha'), (2, 'alpha')",
        "CREATE TABLE made (text TEXT, n INT, total INT GENERATED ALWAYS AS (CAST(text AS INT) + n) STORED)",
        "INSERT INTO made VALUES ('4711', 1)",
        "CREATE TABLE held (text TEXT, n INT, CONSTRAINT positive CHECK (CAST(text AS INT) + n > 0))",
        "INSERT INTO held VALUES ('4711', 1)",
    ] {
        root.update(sql).await.unwrap();
    }
    for table in ["keyed", "made", "held"] {
        root.update(&format!("GRANT INSERT, UPDATE ON {table} TO ann")).await.unwrap();
    }
    let ann = server.client_of("ann", QUIET).await;
    for (sql, hidden, told) in [
        ("UPDATE keyed SET a = 3", "alpha", "has a row with these values already"),
        ("UPDATE made SET n = 2147483647", "4711", "GENERATED column 'total' cannot be computed"),
        ("UPDATE held SET n = 2147483647", "4711", "CHECK 'positive' cannot be computed"),
    ] {
        let error = refused(&ann, sql).await;
        assert!(error.contains(told) && !error.contains(hidden), "{error}");
        // Who may read the rows is told.
        let error = refused(&root, sql).await;
        assert!(error.contains(hidden), "{error}");
    }
    // What a statement says itself is no secret.
    let error = refused(&ann, "INSERT INTO keyed VALUES (1, 'alpha')").await;
    assert!(error.contains("alpha"), "{error}");
    let error = refused(&ann, "INSERT INTO made VALUES ('4712', 2147483647)").await;
    assert!(error.contains("4712"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_rows_that_may_not_be_read_tells_nothing_of_them() {
    let server = TestServer::start();
    let root = server.client().await;
    root.update(&format!("CREATE USER ann WITH PASSWORD '{QUIET}'")).await.unwrap();
    root.update("CREATE TABLE keyed (a INT, code TEXT, PRIMARY KEY (a, code))").await.unwrap();
    root.update("INSERT INTO keyed VALUES (1, 'beta')").await.unwrap();
    root.update("GRANT UPDATE ON keyed TO ann").await.unwrap();
    for (user, password, is_told) in [("ann", QUIET, false), ("root", seracdb_integration_tests::PASSWORD, true)] {
        let client = server.client_of(user, password).await;
        let transaction = client.begin().await.unwrap();
        assert_eq!(transaction.update("UPDATE keyed SET a = 5").await.unwrap(), 1);
        root.update("INSERT INTO keyed VALUES (5, 'beta')").await.unwrap();
        let error = transaction.commit().await.unwrap_err().to_string();
        assert!(error.contains("already") && error.contains("beta") == is_told, "{error}");
        root.update("DELETE FROM keyed WHERE a = 5").await.unwrap();
    }
}
