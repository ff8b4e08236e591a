//! What a write may change, and what an API server changes by itself: `metadata`, `status` and
//! versions.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::failure::Failure;
use crate::kubernetes::Kind;

/// Which part of an object a write is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
}

/// What only the server writes.
const OWN: [&str; 7] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest \
                        version and try again";

/// An object as it is stored first.
pub(super) fn fresh(kind: &Kind, namespace: &str, mut object: Value) -> Result<Value, Failure> {
    shaped(kind, &object)?;
    if kind.status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    let metadata = metadata(&mut object);
    if !text(metadata, "resourceVersion").is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Failure::new(400, message));
    }
    if text(metadata, "name").is_empty() && !text(metadata, "generateName").is_empty() {
        let name = format!(
            "{}{:05x}",
            text(metadata, "generateName"),
            fastrand::u32(..1 << 20)
        );
        metadata.insert("name".to_owned(), name.into());
    }
    if text(metadata, "name").is_empty() {
        return Err(Failure::invalid(
            kind,
            "",
            "metadata.name: Required value: name or generateName is required",
        ));
    }
    let stated = text(metadata, "namespace");
    if !stated.is_empty() && stated != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on \
                       the request";
        return Err(Failure::new(400, message));
    }
    for name in [
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        metadata.remove(name);
    }
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    metadata.insert("uid".to_owned(), uid().into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
    if kind.generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
    Ok(object)
}

/// What an update makes of `old`; `None` when nothing changes.
pub(super) fn settled(
    kind: &Kind,
    part: Part,
    old: &Value,
    mut new: Value,
) -> Result<Option<Value>, Failure> {
    shaped(kind, &new)?;
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let stated = metadata(&mut new);
    if !text(stated, "name").is_empty() && text(stated, "name") != name {
        let message = "the name of the object does not match the name on the URL";
        return Err(Failure::new(400, message));
    }
    if kind.versioned && text(stated, "resourceVersion").is_empty() {
        let why = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
        return Err(Failure::invalid(kind, name, why));
    }
    let claims =
        json!({"resourceVersion": stated.get("resourceVersion"), "uid": stated.get("uid")});
    check(kind, old, &claims)?;
    let mut result = match part {
        Part::Main => new,
        Part::Status => {
            let mut result = old.clone();
            replace_status(&mut result, &new);
            result
        }
    };
    if part == Part::Main {
        keep_own(&mut result, old);
        if kind.status {
            replace_status(&mut result, old);
        }
        if kind.generation && wanted(&result) != wanted(old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            result["metadata"]["generation"] = (generation + 1).into();
        }
        finalizers(kind, old, &result)?;
    }
    result["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    // The kind is the path's: a record writes it anew.
    for name in ["apiVersion", "kind"] {
        result[name] = old[name].clone();
    }
    Ok((result != *old).then_some(result))
}

/// What somebody believes of an object before they change it: `resourceVersion` and `uid`, where
/// they are said.
pub(super) fn check(kind: &Kind, object: &Value, claims: &Value) -> Result<(), Failure> {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let wrong = |claim: &str| {
        let said = claims[claim].as_str().unwrap_or_default();
        !said.is_empty() && Some(said) != metadata[claim].as_str()
    };
    if wrong("uid") {
        let why = "Precondition failed: UID in precondition does not match";
        return Err(Failure::conflict(kind, name, why));
    }
    if wrong("resourceVersion") {
        return Err(Failure::conflict(kind, name, MODIFIED));
    }
    Ok(())
}

/// Whether somebody has still to do something before it may go.
pub(super) fn is_held(object: &Value) -> bool {
    finalizers_of(object).next().is_some()
}

/// Whether it was deleted while it was held.
pub(super) fn is_leaving(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

pub(super) fn mark_leaving(kind: &Kind, object: &mut Value) {
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = now().into();
    metadata["deletionGracePeriodSeconds"] = 0.into();
    if kind.generation {
        let generation = metadata["generation"].as_i64().unwrap_or_default();
        metadata["generation"] = (generation + 1).into();
    }
}

fn finalizers_of(object: &Value) -> impl Iterator<Item = &Value> {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.into_iter().flatten()
}

fn finalizers(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let added = |one| !finalizers_of(old).any(|other| other == one);
    if is_leaving(old) && finalizers_of(new).any(added) {
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        let why = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
                   being deleted";
        return Err(Failure::invalid(kind, name, why));
    }
    Ok(())
}

/// Everything but what the server and controllers say about it.
fn wanted(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    let apart = ["metadata", "status", "apiVersion", "kind"];
    fields
        .filter(|(name, _)| !apart.contains(&name.as_str()))
        .collect()
}

fn replace_status(object: &mut Value, other: &Value) {
    match other.get("status") {
        Some(status) => object["status"] = status.clone(),
        None => drop(
            object
                .as_object_mut()
                .and_then(|fields| fields.remove("status")),
        ),
    }
}

fn keep_own(object: &mut Value, old: &Value) {
    let metadata = metadata(object);
    for name in OWN {
        match old["metadata"].get(name) {
            Some(value) => metadata.insert(name.to_owned(), value.clone()),
            None => metadata.remove(name),
        };
    }
}

fn shaped(kind: &Kind, object: &Value) -> Result<(), Failure> {
    let right = |name: &str, wanted: &str| object[name].as_str().is_none_or(|said| said == wanted);
    if !object.is_object() || !object.get("metadata").is_none_or(Value::is_object) {
        return Err(Failure::new(400, "the object provided is unrecognized"));
    }
    if !right("kind", kind.name) || !right("apiVersion", &kind.api_version()) {
        let message = format!(
            "the API version or the kind in the data does not match the expected {}, {}",
            kind.api_version(),
            kind.name
        );
        return Err(Failure::new(400, message));
    }
    Ok(())
}

/// # Panics
/// Unless it was found to be shaped as objects are.
fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    let metadata = &mut object["metadata"];
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("metadata is an object")
}

fn text<'a>(metadata: &'a Map<String, Value>, name: &str) -> &'a str {
    metadata
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn uid() -> String {
    let random = format!("{:032x}", fastrand::u128(..));
    [
        &random[..8],
        &random[8..12],
        &random[12..16],
        &random[16..20],
        &random[20..],
    ]
    .join("-")
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
