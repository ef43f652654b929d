//! A statement with AS USER against the same statement of the user itself: what the check and its entry in the audit log cost.

use std::time::Instant;

use seracdb_integration_tests::TestServer;

use crate::measure::{Line, Size, median};

pub(crate) async fn run(size: Size) {
    let server = TestServer::start();
    let root = server.client().await;
    root.update("CREATE USER ann WITH PASSWORD 'long enough' ROLE user").await.expect("CREATE USER");
    root.update("CREATE USER TABLE notes (n BIGINT, note TEXT)").await.expect("CREATE TABLE");
    let rows = size.rounds * size.statements;
    for subject in ["", " AS USER 'ann'"] {
        let fill = format!("INSERT INTO notes{subject} SELECT value, 'own' FROM generate_series(1, {rows})");
        root.update(&fill).await.expect("INSERT");
    }
    let pairs = [
        ("insert", "INSERT INTO notes{} VALUES (0, 'another')"),
        ("update", "UPDATE notes{} SET note = 'changed' WHERE n = 1"),
        ("delete", "DELETE FROM notes{} WHERE n = {n}"),
    ];
    for (name, sql) in pairs {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..size.rounds {
            for (times, subject) in [(&mut with, " AS USER 'ann'"), (&mut without, "")] {
                let start = Instant::now();
                for statement in 1..=size.statements {
                    let n = (round * size.statements + statement).to_string();
                    root.update(&sql.replace("{}", subject).replace("{n}", &n)).await.expect("a statement");
                }
                times.push(start.elapsed() / size.statements as u32);
            }
        }
        Line::time(format!("as user, {name}"), median(with), median(without), "by oneself").print();
    }
}
