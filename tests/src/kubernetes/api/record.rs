//! One version of one object, as small as it is sent.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::kubernetes::Kind;

/// A stored object: its bytes, and what is looked for in them most.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) version: u64,
    key: Key,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// Of Secrets, and `""`.
    of_type: Box<str>,
    json: Bytes,
    /// How many bytes say what kind it is: all up to the first field that is the object's own.
    head: usize,
}

/// Namespace, `""` for none, and name: the order of lists.
pub(super) type Key = (Box<str>, Box<str>);

impl Record {
    /// # Panics
    /// Unless it has a name.
    pub(super) fn new(kind: &Kind, version: u64, mut object: Value) -> Record {
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = version.to_string().into();
        let text = |name: &str| metadata[name].as_str().unwrap_or_default();
        let key = (text("namespace").into(), text("name").into());
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let labels =
            labels.filter_map(|(name, value)| Some((name.as_str().into(), value.as_str()?.into())));
        let labels = labels.collect();
        let of_type = object["type"].as_str().unwrap_or_default().into();
        let (json, head) = write(kind, &object);
        Record {
            version,
            key,
            labels,
            of_type,
            json,
            head,
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn namespace(&self) -> &str {
        &self.key.0
    }

    pub(super) fn name(&self) -> &str {
        &self.key.1
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| **label == *name);
        found.map(|(_, value)| &**value)
    }

    pub(super) fn of_type(&self) -> &str {
        &self.of_type
    }

    pub(super) fn json(&self) -> &Bytes {
        &self.json
    }

    /// What it is without its kind, less the brace before it.
    pub(super) fn body(&self) -> &[u8] {
        &self.json[self.head..]
    }

    pub(super) fn object(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap()
    }
}

/// The object with its kind before everything else, and how long that part is, comma included.
fn write(kind: &Kind, object: &Value) -> (Bytes, usize) {
    let mut json = Vec::with_capacity(512);
    let (version, name) = (kind.api_version(), kind.name);
    write!(json, r#"{{"apiVersion":"{version}","kind":"{name}","#).unwrap();
    let head = json.len();
    let fields = object.as_object().expect("an object is one");
    let own = fields
        .iter()
        .filter(|(name, _)| *name != "apiVersion" && *name != "kind");
    for (number, (name, value)) in own.enumerate() {
        if number > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, name).unwrap();
        json.push(b':');
        serde_json::to_writer(&mut json, value).unwrap();
    }
    json.push(b'}');
    (json.into(), head)
}
