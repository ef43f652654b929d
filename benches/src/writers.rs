//! Ten writers on one row, against one writer: updates a second.

use std::sync::Arc;
use std::time::Instant;

use seracdb_integration_tests::TestServer;

use crate::measure::{Line, Size};

pub(crate) async fn run(size: Size) {
    for tier in ["hot", "persisted"] {
        let server = Arc::new(TestServer::start());
        let client = server.client().await;
        client.update("CREATE TABLE counter (n BIGINT)").await.expect("CREATE TABLE");
        client.update("INSERT INTO counter VALUES (0)").await.expect("INSERT");
        let (mut ten, mut one) = (Vec::new(), Vec::new());
        for _ in 0..size.rounds {
            for (rates, writers) in [(&mut ten, 10), (&mut one, 1)] {
                if tier == "persisted" {
                    client.update("STORAGE FLUSH TABLE counter").await.expect("FLUSH");
                }
                rates.push(updates_a_second(&server, writers, size.statements).await);
            }
        }
        Line::rate(format!("writers, ten on one row, {tier}"), middle(ten), middle(one), "one writer").print();
    }
}

async fn updates_a_second(server: &Arc<TestServer>, writers: usize, updates: usize) -> f64 {
    let each = updates.div_ceil(writers);
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let server = Arc::clone(server);
            tokio::spawn(async move {
                let client = server.client().await;
                for _ in 0..each {
                    client.update("UPDATE counter SET n = n + 1").await.expect("UPDATE");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer");
    }
    (each * writers) as f64 / start.elapsed().as_secs_f64()
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
