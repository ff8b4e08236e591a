//! What belongs at a place, as the schema of the format says: for the words of problems of shape.

use std::sync::LazyLock;

use serde_json::Value;

use super::locate::Located;
use crate::compile::report::{FAIR_BY, WAIT};
use crate::duration;
use crate::nearest::{nearest, suggest};

static SCHEMA: LazyLock<Value> = LazyLock::new(crate::schema);

/// Every key of the format: where its mapping is, like `revisions[].queue`, and its name.
static KEYS: LazyLock<Vec<(String, &'static str)>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    collect(&SCHEMA, "", &mut keys);
    keys
});

/// Of more mappings than these that have a key, none is likely to be meant.
const MAPPINGS_SHOWN: usize = 3;
/// More keys than these would hide where else the key belongs.
const KEYS_SHOWN: usize = 8;

/// The type's name, where it has one, and what it says.
fn resolve(node: &'static Value) -> (&'static str, &'static Value) {
    let choices = node["anyOf"].as_array().into_iter().flatten();
    let node = choices.fold(node, |node, choice| match choice["type"] == "null" {
        true => node,
        false => choice,
    });
    let name = node["$ref"].as_str().and_then(|to| to.rsplit('/').next());
    name.map_or(("", node), |name| (name, &SCHEMA["$defs"][name]))
}

fn collect(node: &'static Value, path: &str, keys: &mut Vec<(String, &'static str)>) {
    let (_, node) = resolve(node);
    if node["items"].is_object() {
        return collect(&node["items"], &format!("{path}[]"), keys);
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        keys.push((path.to_owned(), key));
        let dot = if path.is_empty() { "" } else { "." };
        collect(value, &format!("{path}{dot}{key}"), keys);
    }
}

/// Like `routes[0].traffic`; the names of mappings of names to texts may be anything.
fn at(path: &str) -> Option<(&'static str, &'static Value)> {
    let mut found = resolve(&SCHEMA);
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        let next = match step.ends_with(']') {
            true => found.1.get("items"),
            false => found.1["properties"].get(step),
        };
        let any = found.1.get("additionalProperties");
        found = resolve(next.or(any.filter(|any| any.is_object()))?);
    }
    Some(found)
}

/// Problem and hint for a value of the wrong kind.
pub(super) fn other(found: &Located) -> Option<(String, String)> {
    let (name, node) = at(&found.path)?;
    let kind = match &node["type"] {
        Value::Array(kinds) => kinds.first()?.as_str()?,
        kind => kind.as_str().unwrap_or_default(),
    };
    let what = match kind {
        "integer" if found.scalar => return Some(integer(node, &found.value)),
        "boolean" if found.scalar => "this is neither true nor false",
        "number" if found.scalar => "this is not a number",
        "boolean" => "expected true or false",
        "integer" => "expected an integer",
        "number" => "expected a number",
        "array" => "expected a list",
        "object" => "expected a mapping",
        _ if matches!(name, "Duration" | "Wait") => "expected a duration",
        _ => "expected a text",
    };
    let hint = instead(name, found).map(str::to_owned);
    let hint = hint.unwrap_or_else(|| match kind {
        "boolean" => "write true or false".to_owned(),
        "integer" => format!("write {}", range(node)),
        "number" => "write a number like 7 or 0.5".to_owned(),
        "array" if found.scalar => format!("write it as a list: [{}]", found.value),
        "array" => "begin each entry with `- `".to_owned(),
        "object" => mapping(node),
        _ => text(name, node),
    });
    Some((what.to_owned(), hint))
}

/// Where something else is meant than what the kind of value tells.
fn instead(name: &str, found: &Located) -> Option<&'static str> {
    let key = |keys: &str| found.path.ends_with(keys);
    match name {
        "RampUp" if found.scalar => {
            Some("write `{ initial: NUMBER }`; `{ initial: 0 }` switches it off")
        }
        "Deadline" if found.scalar => {
            Some("write `{ header: NAME }`: the request header in which clients say it")
        }
        "AccessLog" if found.scalar => {
            Some("write `{ mode: limited }`, all or off, or other keys of it")
        }
        _ if key(".queue.fairBy") => Some(FAIR_BY),
        _ if key(".queue.priority") => Some(
            "only a number here, 0 to 7; `{ header: NAME }` goes to `priority` of the route or of a rule",
        ),
        _ => None,
    }
}

fn range(node: &Value) -> String {
    match (node["minimum"].as_i64(), node["maximum"].as_i64()) {
        (Some(least), Some(most)) => format!("an integer of {least} to {most}"),
        _ => "an integer like 7".to_owned(),
    }
}

fn integer(node: &Value, value: &str) -> (String, String) {
    let digits = value.trim_start_matches(['-', '+']);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let problem = "the number is out of range".to_owned();
        let hint = match node["maximum"].is_number() {
            true => format!("write {}", range(node)),
            false => "no integer of 64 bits is so large: write another".to_owned(),
        };
        return (problem, hint);
    }
    let end = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(end);
    // What `k` or `MB` stand for depends on whom one asks.
    let each = match unit.trim_start() {
        "Ki" | "KiB" => Some(1 << 10),
        "Mi" | "MiB" => Some(1 << 20),
        "Gi" | "GiB" => Some(1_i64 << 30),
        "%" => Some(1),
        _ => None,
    };
    let number = number.parse::<i64>().ok();
    let whole = number.zip(each).and_then(|(a, b)| a.checked_mul(b));
    let hint = match whole {
        Some(whole) => format!("write {whole}: there are no units here"),
        None if end == 0 => format!("write {}", range(node)),
        None => format!("write {}, without a unit or sign like `%`", range(node)),
    };
    ("this is not an integer".to_owned(), hint)
}

fn mapping(node: &Value) -> String {
    let keys = node["properties"].as_object().into_iter().flatten();
    let keys: Vec<_> = keys.map(|(key, _)| key.as_str()).collect();
    let required = node["required"].as_array().into_iter().flatten();
    let required: Vec<_> = required.filter_map(Value::as_str).collect();
    if let Some(key) = required.first() {
        return format!("write `{{ {key}: ... }}`; keys: {}", keys.join(", "));
    }
    match keys.is_empty() {
        true => "write `NAME: TEXT` pairs".to_owned(),
        false => format!("write `key: value` pairs; keys: {}", keys.join(", ")),
    }
}

fn text(name: &str, node: &Value) -> String {
    let words = node["oneOf"].as_array().into_iter().flatten();
    let words: Vec<_> = words.filter_map(|word| word["const"].as_str()).collect();
    match name {
        "Duration" => duration::FORM.to_owned(),
        "Wait" => WAIT.to_owned(),
        _ if !words.is_empty() => format!("one of: {}", words.join(", ")),
        _ => "write one text, neither a list nor a mapping".to_owned(),
    }
}

/// The hint for a key that is not known at `path`, which ends in it.
pub(super) fn key(path: &str, key: &str, known: &[&str]) -> String {
    let own = path.strip_suffix(key).unwrap_or(path);
    let own = pattern(own.trim_end_matches('.'));
    let own = own.as_str();
    let written = parts(key);
    let spoken = |mapping: &str, key: &str| {
        let within = mapping.rsplit('.').next().unwrap_or_default();
        let mut all = parts(within.trim_end_matches("[]"));
        all.extend(parts(key));
        !within.is_empty()
            && all.len() == written.len()
            && all.iter().all(|part| written.contains(part))
    };
    if let Some((mappings, key)) = elsewhere(own, spoken) {
        return match mappings.is_empty() {
            true => format!("did you mean `{key}`?"),
            false => format!("did you mean `{key}` {mappings}?"),
        };
    }
    let same = elsewhere(own, |_, other| other == key);
    match (nearest(key, known.iter().copied()), same) {
        (Some(near), None) => return format!("did you mean `{near}`?"),
        (Some(near), Some((mappings, _))) => {
            return format!("did you mean `{near}`, or `{key}` {mappings}?");
        }
        (None, Some((mappings, _))) if known.len() > KEYS_SHOWN => {
            return format!("it belongs {mappings}");
        }
        (None, Some((mappings, _))) => {
            return format!("it belongs {mappings}; here, one of: {}", known.join(", "));
        }
        (None, None) => {}
    }
    let kin = known.iter().filter(|known| {
        let known = parts(known);
        let common = known.iter().filter(|part| written.contains(part)).count();
        // Two thirds of the words of both.
        3 * common >= known.len() + written.len()
    });
    let kin: Vec<_> = kin.map(|name| format!("`{name}`")).collect();
    match kin.is_empty() {
        true => suggest(key, known),
        false => format!("did you mean {}?", kin.join(" or ")),
    }
}

/// In which mappings keys like these are, as seen from `own`, and the first one's name: those inside
/// of it, else those of the same part of the document, else any.
fn elsewhere(own: &str, fits: impl Fn(&str, &str) -> bool) -> Option<(String, &'static str)> {
    let section = |path: &str| path.split(['.', '[']).next().unwrap_or_default().to_owned();
    let distance = |mapping: &str| match inside(mapping, own) {
        Some(_) => 0,
        None if section(mapping) == section(own) => 1,
        None => 2,
    };
    let found = KEYS.iter().filter(|(mapping, key)| fits(mapping, key));
    let found: Vec<_> = found.map(|it| (distance(&it.0), it)).collect();
    let nearest = found.iter().map(|(distance, _)| *distance).min()?;
    let found: Vec<_> = found.into_iter().filter(|it| it.0 == nearest).collect();
    if found.len() > MAPPINGS_SHOWN {
        return None;
    }
    let places = found.iter().map(|(_, (mapping, _))| {
        let below = inside(own, mapping).and_then(|rest| rest.split(['.', '[']).next());
        match (inside(mapping, own), below) {
            (Some(""), _) => String::new(),
            (Some(rest), _) => format!("under `{rest}`"),
            (None, Some(key)) if !mapping.is_empty() => format!("beside `{key}`"),
            (None, _) if mapping.is_empty() => "at the top".to_owned(),
            (None, _) => format!("under `{mapping}`"),
        }
    });
    let places: Vec<_> = places.collect();
    Some((places.join(" or "), found.first()?.1.1))
}

/// The rest of `path` behind `outer`, when it is that or within it.
fn inside<'a>(path: &'a str, outer: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(outer)?;
    match rest.strip_prefix('.') {
        Some(rest) => Some(rest),
        None if outer.is_empty() || rest.is_empty() || rest.starts_with('[') => Some(rest),
        None => None,
    }
}

/// `routes[0].traffic[1]` → `routes[].traffic[]`.
fn pattern(path: &str) -> String {
    let mut inside = false;
    let kept = path.chars().filter(|character| {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            _ => return !inside,
        }
        true
    });
    kept.collect()
}

/// The words of a key, in small letters: `heldPerIP` → held, per, ip.
fn parts(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut small = false;
    for character in key.chars() {
        let begins = small && character.is_uppercase();
        small = !character.is_uppercase();
        if begins || matches!(character, '_' | '-') {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| character.is_alphanumeric()) {
            part.extend(character.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}
