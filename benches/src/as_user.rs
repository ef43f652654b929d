//! A statement with AS USER against the same statement of the user itself: what the check and its entry in the audit log cost.

use std::time::Instant;

use seracdb_integration_tests::TestServer;

use crate::measure::{Line, Size, median};

pub(crate) async fn run(size: Size) {
    let server = TestServer::start();
    let root = server.client().await;
    root.update("CREATE USER ann WITH PASSWORD 'long enough' ROLE user").await.expect("CREATE USER");
    root.update("CREATE USER TABLE notes (n BIGINT, note TEXT)").await.expect("CREATE TABLE");
    root.update("INSERT INTO notes VALUES (1, 'own')").await.expect("INSERT");
    root.update("INSERT INTO notes AS USER 'ann' VALUES (1, 'hers')").await.expect("INSERT");
    let pairs = [
        ("insert", "INSERT INTO notes{} VALUES (2, 'another')"),
        ("update", "UPDATE notes{} SET note = 'changed' WHERE n = 1"),
        ("delete", "DELETE FROM notes{} WHERE n = 2"),
    ];
    for (name, sql) in pairs {
        let (acting, own) = (sql.replace("{}", " AS USER 'ann'"), sql.replace("{}", ""));
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..size.rounds {
            for (times, sql) in [(&mut with, &acting), (&mut without, &own)] {
                let start = Instant::now();
                for _ in 0..size.statements {
                    root.update(sql).await.expect("a statement");
                }
                times.push(start.elapsed() / size.statements as u32);
            }
        }
        Line::time(format!("as user, {name}"), median(with), median(without), "by oneself").print();
    }
}
