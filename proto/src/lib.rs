//! Messages on SeracDB's wire that arrow-flight does not have: see `seracdb.proto`, which is the documentation.
//!
//! What it does not know: Arrow, gRPC, the engine.

mod messages {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    include!(concat!(env!("OUT_DIR"), "/seracdb.rs"));
}

pub use messages::*;

/// The type name that [`CreatePreparedStatementResult`] has inside an `Any`.
pub const CREATE_PREPARED_STATEMENT_RESULT_URL: &str =
    "type.googleapis.com/arrow.flight.protocol.sql.ActionCreatePreparedStatementResult";

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Bytes as Arrow's own implementations write them.
    #[test]
    fn field_numbers_are_those_of_arrow() {
        let result = CreatePreparedStatementResult {
            prepared_statement_handle: vec![7].into(),
            is_update: Some(true),
            ..Default::default()
        };
        assert_eq!(result.encode_to_vec(), [0x0a, 1, 7, 0x20, 1]);

        let value = SessionOptionValue { option_value: Some(session_option_value::OptionValue::Int64Value(1)) };
        assert_eq!(value.encode_to_vec(), [0x19, 1, 0, 0, 0, 0, 0, 0, 0]);

        let closed = CloseSessionResult { status: close_session_result::Status::Closed as i32 };
        assert_eq!(closed.encode_to_vec(), [0x08, 1]);
    }
}
