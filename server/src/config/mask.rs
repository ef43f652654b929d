//! What a value is for others to read.

use serde_json::Value;

/// The same without what is nobody's business: credentials in an address, wherever it stands.
pub(super) fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_credentials(text)),
        Value::Array(items) => Value::Array(items.iter().map(masked).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), masked(value))).collect())
        }
        other => other.clone(),
    }
}

/// A text without the user and the password before the host that it names.
fn without_credentials(text: &str) -> String {
    let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + "://".len()));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let end = match rest.rfind('@') {
        // A secret may have slashes, as those of S3 do, and the address be no URL because of them.
        Some(at) if rest[..at].contains(':') => Some(at),
        _ => authority.rfind('@'),
    };
    end.map_or_else(|| text.to_owned(), |at| format!("{scheme}***{}", &rest[at..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_are_masked_and_nothing_else() {
        for (text, shown) in [
            ("s3://key:secret@bucket/prefix", "s3://***@bucket/prefix"),
            ("s3://key@bucket", "s3://***@bucket"),
            ("s3://key:sec/r@t@bucket/prefix", "s3://***@bucket/prefix"),
            ("s3:key:secret@bucket", "***@bucket"),
            ("key:secret@bucket", "***@bucket"),
        ] {
            assert_eq!(masked(&json!(text)), json!(shown));
            assert_eq!(masked(&json!([{ "url": text }])), json!([{ "url": shown }]));
        }
        for same in
            ["s3://bucket/a@b", "file:///home/a@b", "name@project.example", "127.0.0.1:1", "[::1]:1", "ä://", "@", ""]
        {
            assert_eq!(masked(&json!(same)), json!(same));
        }
        assert_eq!(masked(&json!([1, true, null])), json!([1, true, null]));
    }
}
