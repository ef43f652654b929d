//! What is stored as JSON, and the names that are stored: none of it may change by accident. Bytes of our own have their golden
//! tests beside the code that writes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bloom::SidecarRef;
use crate::bulk::proof::{PROOF_FORMAT, Proof};
use crate::catalog::{
    DroppedTable, Given, GrantOn, GrantRecord, Grantee, IndexRecord, NamespaceRecord, Privilege, TableKind,
    TableRecord, TokenRecord, UserRecord, ViewRead, ViewRecord,
};
use crate::error::StorageError;
use crate::keys::{BatchNumber, Generation, Owner, Scope, TableId};
use crate::manifest::Manifest;
use crate::records::tests::record;
use crate::records::{BatchKind, BatchRecord, BatchStatus, ColumnBounds, DeletesRef, ScopeHeader};
use crate::schema::TableSchema;
use crate::scope_place::ScopePlace;
use crate::segment::Footer;
use crate::steps::NoWait;
use crate::system_columns::CommitTs;
use crate::test_table::TestDir;

fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, json: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), json);
    assert_eq!(&serde_json::from_str::<T>(json).unwrap(), value);
}

/// An Arrow IPC schema message with one INT column.
const INT: &str = concat!(
    "0c0000000800080000000400080000000400000001000000140000001000140010000e000f00040000000800100000001800000020000000",
    "000001021c00000008000c0004000b00080000002000000000000001000000000000000000000000"
);

fn schema() -> TableSchema {
    TableSchema::first(&[Field::new("a", DataType::Int32, true)])
}

fn full_record() -> BatchRecord {
    let bounds = ColumnBounds { min: Some(1.into()), max: Some("z".into()), null_count: 2, exact: false };
    BatchRecord {
        kind: BatchKind::Compact,
        status: BatchStatus::Archived,
        column_min_max: BTreeMap::from([("a".to_owned(), bounds)]),
        replaces: vec![BatchNumber(1), BatchNumber(2)],
        tombstones: 1,
        deletes: Some(DeletesRef { path: "d".into(), cardinality: 4, as_of: CommitTs::stored(5), size_bytes: 6 }),
        archived_at: Some(CommitTs::stored(7)),
        bloom: Some(SidecarRef { file_path: "b".into(), size_bytes: 8, checksum: 9 }),
        ..record(3, "f", 10)
    }
}

const RECORD: &str = concat!(
    r#"{"batch_number":3,"file_path":"f","kind":"compact","status":"archived","min_updated":1,"max_updated":2,"#,
    r#""column_min_max":{"a":{"min":1,"max":"z","null_count":2,"exact":false}},"row_count":1,"size_bytes":10,"#,
    r#""checksum":0,"schema_version":1,"replaces":[1,2],"tombstones":1,"#,
    r#""deletes":{"path":"d","cardinality":4,"as_of":5,"size_bytes":6},"archived_at":7,"#,
    r#""bloom":{"file_path":"b","size_bytes":8,"checksum":9}}"#
);

#[test]
fn records_of_batches() {
    golden(&full_record(), RECORD);
    for (status, name) in [
        (BatchStatus::Active, r#""active""#),
        (BatchStatus::Compacting, r#""compacting""#),
        (BatchStatus::Archived, r#""archived""#),
        (BatchStatus::Removing, r#""removing""#),
    ] {
        golden(&status, name);
    }
    for (kind, name) in [
        (BatchKind::Flush, r#""flush""#),
        (BatchKind::Archive, r#""archive""#),
        (BatchKind::Bulk, r#""bulk""#),
        (BatchKind::Compact, r#""compact""#),
    ] {
        golden(&kind, name);
    }
    let header = ScopeHeader {
        active: Generation(4),
        sealed: vec![Generation(3)],
        draining: vec![Generation(2)],
        next_batch: BatchNumber(9),
        max_batch: BatchNumber(8),
        version: 7,
        exported: 6,
        flushed_to: CommitTs::stored(5),
        recovering: true,
        keys_lost: false,
        spared: BatchNumber(4),
        history_from: CommitTs::default(),
        gone_to: None,
    };
    let json = concat!(
        r#"{"active":4,"sealed":[3],"draining":[2],"next_batch":9,"max_batch":8,"version":7,"exported":6,"#,
        r#""flushed_to":5,"recovering":true,"spared":4}"#
    );
    golden(&header, json);
}

#[test]
fn a_manifest() {
    let place = ScopePlace {
        scope: Scope { table: TableId(7), owner: Owner(2) },
        namespace: "app".into(),
        table: "t".into(),
        user: Some("ann".into()),
        prefix: "app/t/user_ann".into(),
    };
    let header = ScopeHeader { version: 3, max_batch: BatchNumber(4), ..ScopeHeader::default() };
    let removing = BatchRecord { status: BatchStatus::Removing, ..record(4, "gone", 1) };
    let records = [full_record(), removing];
    let manifest = Manifest::of(&place, &header, &records, 2, 11, Default::default());
    let json = format!(
        concat!(
            r#"{{"format_version":1,"table_id":7,"scope":"user:ann","version":3,"epoch":2,"generated_at":11,"#,
            r#""max_batch":4,"flushed_to":0,"batches":[{}]}}"#
        ),
        RECORD
    );
    golden(&manifest, &json);
    assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
}

#[test]
fn bulk_files() {
    let bulk = BatchRecord { kind: BatchKind::Bulk, ..record(3, "f", 10) }.committed_at(CommitTs::stored(1), 5);
    golden(
        &bulk,
        concat!(
            r#"{"batch_number":3,"file_path":"f","kind":"bulk","status":"active","min_updated":1,"max_updated":1,"#,
            r#""column_min_max":{"_updated":{"min":"1970-01-01T00:00:00.000000001","max":"1970-01-01T00:00:00.000000001","#,
            r#""null_count":0,"exact":true}},"row_count":1,"size_bytes":10,"checksum":0,"schema_version":1,"#,
            r#""tombstones":0,"since":5}"#
        ),
    );
    let proof = Proof {
        format_version: PROOF_FORMAT,
        table_id: TableId(7),
        scope: "user:ann".into(),
        batch_number: BatchNumber(3),
        updated: CommitTs::stored(1),
        epoch: 2,
    };
    golden(&proof, r#"{"format_version":1,"table_id":7,"scope":"user:ann","batch_number":3,"updated":1,"epoch":2}"#);
}

#[test]
fn the_catalog() {
    let table = TableRecord {
        id: TableId(7),
        namespace: "app".into(),
        name: "t".into(),
        kind: TableKind::Stream,
        prefix: "app/t~7".into(),
        options: BTreeMap::from([("ttl".to_owned(), "10s".to_owned())]),
        indexes: vec![IndexRecord { name: "by_a".into(), columns: vec![16] }],
        unique: vec![],
        checks: vec![],
        alterations: 0,
        rules: 0,
        keys_dropped: 0,
        ttl_ns: Some(10),
        comment: None,
        column_comments: BTreeMap::new(),
        schemas: vec![schema()],
        created_at_ns: 5,
        created_by: "root".into(),
    };
    let json = format!(
        concat!(
            r#"{{"id":7,"namespace":"app","name":"t","kind":"stream","prefix":"app/t~7","options":{{"ttl":"10s"}},"#,
            r#""indexes":[{{"name":"by_a","columns":[16]}}],"ttl_ns":10,"schemas":[{{"version":1,"columns":"#,
            r#"[{{"id":16,"name":"a","nullable":true,"type":"{}"}}]}}],"created_at_ns":5,"created_by":"root"}}"#
        ),
        INT
    );
    golden(&table, &json);
    let said = TableRecord {
        comment: Some("of t".into()),
        column_comments: BTreeMap::from([(16, "of a".to_owned())]),
        ..table
    };
    let comments = r#""ttl_ns":10,"comment":"of t","column_comments":{"16":"of a"},"#;
    golden(&said, &json.replace(r#""ttl_ns":10,"#, comments));
    let view = ViewRecord {
        namespace: "app".into(),
        name: "v".into(),
        query: "SELECT * FROM t".into(),
        resolves_in: "app".into(),
        columns: schema().columns,
        reads: vec![
            ViewRead { namespace: "app".into(), name: "t".into(), columns: vec!["a".into()], built_in: false },
            ViewRead { namespace: "system".into(), name: "queries".into(), columns: vec![], built_in: true },
        ],
        comment: Some("of v".into()),
        column_comments: BTreeMap::from([(16, "of a".to_owned())]),
        created_at_ns: 5,
        created_by: "root".into(),
    };
    let json = format!(
        concat!(
            r#"{{"namespace":"app","name":"v","query":"SELECT * FROM t","resolves_in":"app","columns":"#,
            r#"[{{"id":16,"name":"a","nullable":true,"type":"{}"}}],"reads":[{{"namespace":"app","name":"t","#,
            r#""columns":["a"]}},{{"namespace":"system","name":"queries","columns":[],"built_in":true}}],"#,
            r#""comment":"of v","column_comments":{{"16":"of a"}},"created_at_ns":5,"created_by":"root"}}"#
        ),
        INT
    );
    golden(&view, &json);
    golden(&TableKind::Shared, r#""shared""#);
    golden(&TableKind::User, r#""user""#);
    golden(
        &NamespaceRecord { name: "app".into(), created_at_ns: 5, created_by: None, comment: None },
        r#"{"name":"app","created_at_ns":5}"#,
    );
    let said =
        NamespaceRecord { name: "app".into(), created_at_ns: 5, created_by: None, comment: Some("of app".into()) };
    golden(&said, r#"{"name":"app","created_at_ns":5,"comment":"of app"}"#);
    let owned = NamespaceRecord { created_by: Some("ann".into()), comment: None, ..said };
    golden(&owned, r#"{"name":"app","created_at_ns":5,"created_by":"ann"}"#);
    golden(&DroppedTable { id: TableId(7), prefix: "app/t".into() }, r#"{"id":7,"prefix":"app/t"}"#);
    let user = UserRecord {
        number: 2,
        name: "ann".into(),
        role: "user".into(),
        password_hash: "$argon2id$…".into(),
        created_at_ns: 5,
        deleted_at_ns: None,
    };
    let json = concat!(
        r#"{"number":2,"name":"ann","role":"user","password_hash":"$argon2id$…","created_at_ns":5,"#,
        r#""deleted_at_ns":null}"#
    );
    golden(&user, json);
}

#[test]
fn tokens() {
    let token = TokenRecord {
        id: "0123456789abcdef".into(),
        name: None,
        user: "ann".into(),
        hash: "00ff".into(),
        last_four: "wxyz".into(),
        created_at_ns: 5,
        created_by: "root".into(),
        expires_at_ns: None,
        role_max: None,
    };
    // As they were before there was a ceiling.
    let json = concat!(
        r#"{"id":"0123456789abcdef","user":"ann","hash":"00ff","last_four":"wxyz","created_at_ns":5,"#,
        r#""created_by":"root","expires_at_ns":null}"#
    );
    golden(&token, json);
    let limited =
        TokenRecord { name: Some("ci".into()), expires_at_ns: Some(7), role_max: Some("admin".into()), ..token };
    let json = concat!(
        r#"{"id":"0123456789abcdef","name":"ci","user":"ann","hash":"00ff","last_four":"wxyz","created_at_ns":5,"#,
        r#""created_by":"root","expires_at_ns":7,"role_max":"admin"}"#
    );
    golden(&limited, json);
}

#[test]
fn grants() {
    let given = |at_ns| Given { by: "root".into(), at_ns };
    let record = GrantRecord {
        on: GrantOn::Table(TableId(7)),
        to: Grantee::User(2),
        privileges: [(Privilege::Select, given(5)), (Privilege::Insert, given(6))].into(),
    };
    golden(
        &record,
        concat!(
            r#"{"on":{"table":7},"to":{"user":2},"privileges":{"select":{"by":"root","at_ns":5},"#,
            r#""insert":{"by":"root","at_ns":6}}}"#
        ),
    );
    golden(&GrantOn::View("app".into(), "v".into()), r#"{"view":["app","v"]}"#);
    golden(&GrantOn::Namespace("app".into()), r#"{"namespace":"app"}"#);
    golden(&Grantee::Role("service".into()), r#"{"role":"service"}"#);
    for (privilege, name) in Privilege::ALL.iter().zip(["select", "insert", "update", "delete"]) {
        golden(privilege, &format!("\"{name}\""));
    }
}

#[test]
fn a_footer_and_the_columns_of_a_file() {
    let footer = Footer {
        format_version: 1,
        table_id: TableId(7),
        scope: "shared".into(),
        batch_number: BatchNumber(3),
        kind: BatchKind::Flush,
        replaces: vec![BatchNumber(1)],
        schema_version: 1,
        min_updated: CommitTs::stored(4),
        max_updated: CommitTs::stored(5),
        as_of: CommitTs::stored(6),
        epoch: 2,
    };
    let json = concat!(
        r#"{"format_version":1,"table_id":7,"scope":"shared","batch_number":3,"kind":"flush","replaces":[1],"#,
        r#""schema_version":1,"min_updated":4,"max_updated":5,"as_of":6,"epoch":2}"#
    );
    golden(&footer, json);
    let file = schema().file();
    let columns: Vec<String> = file
        .fields()
        .iter()
        .map(|field| {
            let id = &field.metadata()["PARQUET:field_id"];
            format!("{id} {} {} {}", field.name(), field.data_type(), field.is_nullable())
        })
        .collect();
    let expected =
        ["1 _id Int64 false", "16 a Int32 true", "2 _updated Timestamp(ns) false", "3 _deleted Boolean false"];
    assert_eq!(columns, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory() {
    let dir = TestDir::new();
    dir.open(Arc::new(NoWait)).await.close().await;
    let path = dir.config.data_dir.join("FORMAT");
    let format: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let id = format["data_dir_id"].as_str().unwrap();
    assert_eq!(format, serde_json::json!({"format_version": 1, "data_dir_id": id}));
    let mut families = rocksdb::DB::list_cf(&rocksdb::Options::default(), dir.config.data_dir.join("rocksdb")).unwrap();
    families.sort();
    let expected = [
        "audit",
        "batches",
        "catalog",
        "default",
        "delete_log",
        "jobs",
        "keys",
        "manifest_cache",
        "rows",
        "transactions",
        "users",
    ];
    assert_eq!(families, expected);

    std::fs::write(&path, format!(r#"{{"format_version":2,"data_dir_id":"{id}"}}"#)).unwrap();
    let newer = loop {
        let clock = Arc::clone(&dir.clock);
        match crate::store::Store::open_on(&dir.config, clock, None, Arc::new(NoWait)).await {
            Err(StorageError::InUse(_)) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            opened => break opened.unwrap_err(),
        }
    };
    assert!(matches!(newer, StorageError::FormatVersion { found: 2, known: 1, .. }), "{newer}");
}
