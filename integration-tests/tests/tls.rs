//! The Rust client over TLS, and over connections that the server asks to end.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use seracdb_client::{Client, Code, Tls};
use seracdb_integration_tests::{PASSWORD, TestServer, binary};
use tempfile::TempDir;

fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(binary()).args(["tls", "self-signed", "--force", "--dir"]).arg(folder.path()).output();
    assert!(made.unwrap().status.success());
    folder
}

/// A server with these certificates, whose clients have to show one of them too.
fn server(folder: &Path) -> TestServer {
    let file = |name: &str| folder.join(name).display().to_string();
    TestServer::start_with(&[
        ("SERACDB_SERVER__TLS__CERT_FILE", &file("server.pem")),
        ("SERACDB_SERVER__TLS__KEY_FILE", &file("server.key")),
        ("SERACDB_SERVER__TLS__CLIENT_CA_FILE", &file("ca.pem")),
        ("SERACDB_SERVER__TLS__REQUIRE_CLIENT_CERT", "true"),
        ("SERACDB_LIMITS__CONNECTION_SECONDS_MAX", "1"),
    ])
}

fn tls(trusted: &Path, shown: Option<&Path>) -> Tls {
    Tls {
        ca_file: Some(trusted.join("ca.pem")),
        cert_file: shown.map(|folder| folder.join("client.pem")),
        key_file: shown.map(|folder| folder.join("client.key")),
        server_name: None,
    }
}

async fn count_kept(client: &Client) -> u64 {
    let rows = client.query("SELECT count(*) FROM kept").await.unwrap().collect().await.unwrap();
    rows[0].column(0).as_primitive::<Int64Type>().value(0).try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_trusted_logs_in_and_works_beyond_the_end_of_its_connection() {
    let folder = certificates();
    let (folder, other) = (folder.path(), certificates());
    let server = server(folder);
    assert!(server.uri().starts_with("grpc+tls://"), "{}", server.uri());
    let connect = async |password: &str, tls: &Tls| Client::connect_with(server.uri(), "root", password, tls).await;

    let good = tls(folder, Some(folder));
    let client = connect(PASSWORD, &good).await.unwrap();
    // Many at once, so that some are on their way whenever the connection ends: none fails, and none is done twice.
    client.update("CREATE SHARED TABLE kept (n BIGINT)").await.unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    let work_until_then = async |client: Client| {
        let mut inserted = 0;
        while Instant::now() < until {
            inserted += client.update("INSERT INTO kept VALUES (1)").await.unwrap();
            assert!(count_kept(&client).await >= inserted);
        }
        inserted
    };
    let inserted = futures::future::join_all((0..16).map(|_| work_until_then(client.clone()))).await;
    assert_eq!(count_kept(&client).await, inserted.iter().sum::<u64>());
    assert_eq!(connect("wrong", &good).await.unwrap_err().code(), Code::Unauthenticated);

    let untrusted = connect(PASSWORD, &tls(other.path(), Some(folder))).await.unwrap_err();
    assert_eq!(untrusted.code(), Code::Unavailable);
    assert!(untrusted.to_string().contains("certificate"), "{untrusted}");
    for refused in [tls(folder, None), tls(folder, Some(other.path()))] {
        let error = connect(PASSWORD, &refused).await.unwrap_err();
        assert_ne!(error.code(), Code::Unauthenticated, "it got as far as the login: {error}");
    }
    let named = Tls { server_name: Some("other.example".into()), ..good };
    assert!(connect(PASSWORD, &named).await.unwrap_err().to_string().contains("not valid for name"));
    assert_eq!(client.query("SELECT 1").await.unwrap().collect().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_one_side_only_fails_fast() {
    let folder = certificates();
    let (encrypted, plain) = (server(folder.path()), TestServer::start());
    let began = Instant::now();
    let to_tls = encrypted.uri().replace("grpc+tls://", "grpc://");
    assert!(Client::connect(&to_tls, "root", PASSWORD).await.is_err());
    let to_plain = plain.uri().replace("grpc://", "grpc+tls://");
    let error = Client::connect_with(&to_plain, "root", PASSWORD, &tls(folder.path(), None)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let error = Client::connect_with(plain.uri(), "root", PASSWORD, &tls(folder.path(), None)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    plain.client().await.query("SELECT 1").await.unwrap();
}
