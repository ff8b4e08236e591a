//! The user's reference of the file format, written from the types: `docs/configuration.md`.

use std::fmt::Write;

use serde_json::Value;

const HEAD: &str = "# Configuration

<!-- Written from the types in config/src/document; a test compares. To write it again:
     UPDATE=1 cargo test -p config reference -->

Tidegate reads YAML: a file is a stream of documents, and all documents of all files and
directories given with `-f` merge into one whole. Defaults stand in parentheses. Unknown keys are
errors. So are keys that another key, or the want of one, leaves without effect (`health` without
`endpoints`, `interval` with `initial: 0`), a part's bound above that of the whole (`perClient` above
`depth`), and a second rule for the same requests. `tidegate validate` tells every problem with
its place and what to write instead (of unknown keys and values of the wrong kind the first of each
document: what follows cannot be read), and `tidegate schema` prints this format as a JSON Schema for
editors. A running gateway takes a changed file at once, all of it or, when anything is wrong,
nothing.

A small one:

```yaml
";

/// The reference as Markdown.
#[must_use]
pub fn markdown() -> String {
    let schema = crate::schema();
    let mut text = String::from(HEAD);
    text.push_str(include_str!("../../examples/minimal.yaml"));
    text.push_str("```\n");
    let mut section = Section {
        schema: &schema,
        text,
        named: vec!["Document".to_owned()],
    };
    section.write("Document", &schema);
    let mut next = 1;
    while let Some(name) = section.named.get(next).cloned() {
        section.write(&name, &schema["$defs"][&name]);
        next += 1;
    }
    section.text
}

struct Section<'a> {
    schema: &'a Value,
    text: String,
    /// Types that have a section or will get one, in order.
    named: Vec<String>,
}

impl Section<'_> {
    fn write(&mut self, name: &str, of: &Value) {
        let about = description(of);
        self.line(&format!("\n## {name}\n\n{about}\n"));
        if let Some(keys) = of["properties"].as_object() {
            self.line("| key | value | meaning |\n| --- | --- | --- |");
            for (key, value) in keys {
                let required = of["required"].as_array();
                let required = required.is_some_and(|all| all.iter().any(|one| one == key));
                let required = if required { "**required** " } else { "" };
                let kind = self.kind(value);
                let meaning = description(value);
                self.line(&format!("| `{key}` | {required}{kind} | {meaning} |"));
            }
        }
        for variant in of["oneOf"].as_array().into_iter().flatten() {
            let value = variant["const"].as_str().unwrap_or_default();
            let meaning = description(variant);
            self.line(&format!("- `{value}`: {meaning}"));
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a `String` cannot fail.
        writeln!(self.text, "{line}").unwrap_or_default();
    }

    /// What may be written as the value of a key.
    fn kind(&mut self, value: &Value) -> String {
        if let Some(reference) = value["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
            debug_assert!(self.schema["$defs"][&name].is_object(), "{name} is defined");
            if !self.named.contains(&name) {
                self.named.push(name.clone());
            }
            return format!("[{name}](#{})", name.to_lowercase());
        }
        if let Some(choices) = value["anyOf"].as_array() {
            let some = choices.iter().find(|choice| choice["type"] != "null");
            return some.map_or(String::new(), |some| self.kind(some));
        }
        let kind = match &value["type"] {
            Value::Array(kinds) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
            kind => kind.as_str().unwrap_or_default(),
        };
        match kind {
            "array" => format!("list of {}", self.kind(&value["items"])),
            "object" => "mapping of names to texts".to_owned(),
            "string" => "text".to_owned(),
            other => other.to_owned(),
        }
    }
}

fn description(of: &Value) -> String {
    let text = of["description"].as_str().unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

    #[test]
    fn the_reference_in_docs_is_up_to_date() {
        let written = markdown();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(PAGE, &written).expect("docs can be written");
        }
        let page = std::fs::read_to_string(PAGE).expect("docs can be read");
        assert!(
            page == written,
            "run: UPDATE=1 cargo test -p config reference"
        );
    }

    #[test]
    fn every_key_has_a_meaning() {
        for line in markdown().lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.split(" | ").collect();
            assert_eq!(cells.len(), 3, "{line}");
            assert!(cells[2].trim_end_matches(" |").len() > 3, "{line}");
        }
    }
}
