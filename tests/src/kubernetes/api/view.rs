//! How objects are shown: whole, or only their metadata.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::ACCEPT;
use serde_json::{Value, json};

use super::record::{Key, Record};
use super::store::Page;
use crate::kubernetes::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
}

impl View {
    /// What a client asks for.
    pub(super) fn of(headers: &HeaderMap) -> View {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        match accept {
            Some(accept) if accept.contains("as=PartialObjectMetadata") => View::Metadata,
            _ => View::Whole,
        }
    }

    pub(super) fn one(self, json: &Bytes) -> Bytes {
        match self {
            View::Whole => json.clone(),
            View::Metadata => {
                let object: Value = serde_json::from_slice(json).unwrap();
                let view = json!({
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": object["metadata"],
                });
                view.to_string().into()
            }
        }
    }

    pub(super) fn list(self, kind: &Kind, page: &Page, remaining: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": page.version.to_string()});
        if let Some((namespace, name)) = &page.next {
            metadata["continue"] = format!("{}.{namespace}.{name}", page.version).into();
            if remaining {
                metadata["remainingItemCount"] = page.remaining.into();
            }
        }
        let (version, name) = match self {
            View::Whole => (kind.api_version(), format!("{}List", kind.name)),
            View::Metadata => (
                "meta.k8s.io/v1".to_owned(),
                "PartialObjectMetadataList".to_owned(),
            ),
        };
        let head = format!(
            r#"{{"kind":"{name}","apiVersion":"{version}","metadata":{metadata},"items":["#
        );
        let mut json = Vec::from(head);
        for (number, record) in page.records.iter().enumerate() {
            if number > 0 {
                json.push(b',');
            }
            self.item(&mut json, kind, record);
        }
        json.extend_from_slice(b"]}");
        json.into()
    }

    fn item(self, json: &mut Vec<u8>, kind: &Kind, record: &Record) {
        if self == View::Whole && !kind.custom {
            json.push(b'{');
            json.extend_from_slice(record.body());
        } else {
            json.extend_from_slice(&self.one(record.json()));
        }
    }
}

/// Where a list goes on, as [`View::list`] said it.
pub(super) fn continued(token: &str) -> Option<(u64, Key)> {
    let mut parts = token.splitn(3, '.');
    let version = parts.next()?.parse().ok()?;
    Some((version, (parts.next()?.into(), parts.next()?.into())))
}
