//! Constraints that come while rows are written: of the two that do not go together one is refused.

use crate::StorageError;
use crate::catalog::{CatalogChange, CatalogError, ConstraintChange, TableChange, UniqueRecord};
use crate::commit::Commit;
use crate::test_table::{TestDir, TestTable};

/// `v` becomes unique, as is known of the rows of this scope.
fn unique(table: &TestTable, id: u32, alterations: u32) -> CatalogChange {
    let key = UniqueRecord { id, name: "by_v".into(), columns: vec![16], primary: false, nulls_equal: false };
    let change = ConstraintChange {
        unique: vec![key],
        checks: vec![],
        not_null: vec![],
        version: 1,
        alterations,
        verified: Some(vec![table.scope]),
    };
    CatalogChange::AlterTable { table: table.scope.table, change: TableChange::Constraints(change) }
}

#[tokio::test]
async fn a_constraint_rests_on_the_rows_of_its_snapshot() {
    let dir = TestDir::new();
    let table = dir.table().await;
    table.insert(&[1, 2]).await;
    let (before, seen) = (table.store.snapshot(), table.store.snapshot());
    table.insert(&[3]).await;
    let refused = table.store.commit(Commit::of_catalog(seen, vec![unique(&table, 1, 0)], vec![])).await;
    assert!(matches!(refused, Err(StorageError::Catalog(CatalogError::TableWritten(..)))), "{refused:?}");
    assert!(!table.store.snapshot().keys_lost(table.scope).unwrap());

    // What is written to files is no other row.
    let seen = table.store.snapshot();
    table.flush().await.unwrap();
    table.store.commit(Commit::of_catalog(seen, vec![unique(&table, 1, 0)], vec![])).await.unwrap();
    let after = table.store.snapshot();
    assert!(after.keys_lost(table.scope).unwrap());
    let record = |snapshot: &crate::snapshot::Snapshot| {
        std::sync::Arc::clone(snapshot.catalog().table_by_id(table.scope.table).unwrap())
    };
    assert_eq!((record(&before).rules, record(&after).rules), (0, 1));

    // Rows that were made for the table as it was come too late, those that were made for it as it is do not.
    let write = |rules| table.write_for(4, rules);
    assert!(matches!(write(0).await, Err(StorageError::Conflict)));
    write(1).await.unwrap();
    assert_eq!(table.values(), [1, 2, 3, 4]);
    table.store.close().await;
}

#[tokio::test]
async fn a_constraint_that_asks_nothing_more_is_in_nobodys_way() {
    let dir = TestDir::new();
    let table = dir.table().await;
    let seen = table.store.snapshot();
    table.insert(&[1]).await;
    let CatalogChange::AlterTable { table: id, change: TableChange::Constraints(change) } = unique(&table, 1, 0) else {
        panic!("it alters a table");
    };
    let change = ConstraintChange { unique: vec![], verified: None, ..change };
    let change = CatalogChange::AlterTable { table: id, change: TableChange::Constraints(change) };
    table.store.commit(Commit::of_catalog(seen, vec![change], vec![])).await.unwrap();
    table.write_for(2, 0).await.unwrap();
    assert!(!table.store.snapshot().keys_lost(table.scope).unwrap());
    assert_eq!(table.values(), [1, 2]);
    table.store.close().await;
}
