//! Text → statements about users and their rights.

use seracdb_storage::catalog::Privilege;

use crate::error::ErrorKind;
use crate::identity::Role;
use crate::sql::statement::{AlterUser, Grant, GrantedOn, GrantedTo, Password, Statement};
use crate::sql::{Limits, TableName, parse};

fn of(sql: &str) -> Statement {
    parse(sql, &Limits::default()).unwrap_or_else(|e| panic!("{sql}: {}", e.message))
}

fn user(name: &str) -> GrantedTo {
    GrantedTo::User(name.into())
}

#[test]
fn grants_and_revokes() {
    let table = |namespace: Option<&str>, table: &str| {
        GrantedOn::Table(TableName { namespace: namespace.map(str::to_owned), table: table.into() })
    };
    let all = Privilege::ALL.to_vec();
    for (rest, privileges, on, to) in [
        ("SELECT ON t {} anna", vec![Privilege::Select], table(None, "t"), vec![user("anna")]),
        (
            "insert, Delete, INSERT ON TABLE Ns.\"T\" {} 'An na', Bert, 'An na'",
            vec![Privilege::Insert, Privilege::Delete],
            table(Some("ns"), "T"),
            vec![user("An na"), user("Bert")],
        ),
        ("ALL ON VIEW ns.v {} ROLE user", all.clone(), table(Some("ns"), "v"), vec![GrantedTo::Role(Role::User)]),
        (
            "ALL PRIVILEGES ON NAMESPACE Ns {} ROLE 'Admin', anna",
            all.clone(),
            GrantedOn::Namespace("ns".into()),
            vec![GrantedTo::Role(Role::Admin), user("anna")],
        ),
        ("ALL ON SCHEMA seracdb.ns {} \"role\"", all, GrantedOn::Namespace("ns".into()), vec![user("role")]),
    ] {
        let grant = Grant { privileges, on, to };
        assert_eq!(of(&format!("GRANT {}", rest.replace("{}", "TO"))), Statement::Grant(grant.clone()), "{rest}");
        assert_eq!(of(&format!("REVOKE {}", rest.replace("{}", "FROM"))), Statement::Revoke(grant), "{rest}");
    }
}

#[test]
fn users_are_changed_and_dropped() {
    let alter = |name: &str, change| Statement::AlterUser { name: name.into(), change };
    let drop = |name: &str, if_exists| Statement::DropUser { name: name.into(), if_exists };
    for (sql, expected) in [
        ("ALTER USER Anna SET PASSWORD 'it''s'", alter("Anna", AlterUser::Password(Password("it's".into())))),
        ("alter user 'an na' set role SERVICE", alter("an na", AlterUser::Role(Role::Service))),
        ("DROP USER Anna", drop("Anna", false)),
        ("DROP USER IF EXISTS 'an na'", drop("an na", true)),
    ] {
        assert_eq!(of(sql), expected, "{sql}");
    }
    assert!(!format!("{:?}", of("ALTER USER anna SET PASSWORD 'secret'")).contains("secret"));
}

#[test]
fn what_follows_a_password_is_not_repeated() {
    for sql in [
        "CREATE USER a PASSWORD 'x' 'secret'",
        "CREATE USER a PASSWORD 'x'secret'y'",
        "CREATE USER a PASSWORD 'x' \"secret\"",
        "CREATE USER a PASSWORD 'x'; secret",
        "CREATE USER a PASSWORD secret",
        "CREATE USER a PASSWORD 'secret",
        "ALTER USER a 'secret'",
        "ALTER USER a SET PASSWORD 'x' secret",
        "ALTER USER a SET PASSWORD = 'secret'",
        "ALTER USER a WITH PASSWORD 'secret'",
    ] {
        let error = parse(sql, &Limits::default()).unwrap_err();
        assert!(error.kind == ErrorKind::InvalidArgument && !error.message.contains("secret"), "{}", error.message);
    }
}
