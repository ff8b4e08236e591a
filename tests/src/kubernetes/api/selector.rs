//! Which objects a list or a watch is about: `labelSelector` and `fieldSelector`.

use super::failure::Failure;
use super::record::Record;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// `None` for those of all namespaces.
    pub(super) namespace: Option<String>,
    labels: Vec<(String, Demand)>,
    fields: Vec<(Field, bool, String)>,
}

/// What is demanded of a label's value, which may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    Exists,
    Missing,
    In(Vec<String>),
    /// A missing value is none of these.
    NotIn(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// Of Secrets.
    Type,
}

impl Selection {
    pub(super) fn parse(
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Selection, Failure> {
        let labels = requirements(labels).into_iter().map(label);
        let fields = requirements(fields).into_iter().map(field);
        Ok(Selection {
            namespace: namespace.map(str::to_owned),
            labels: labels.collect::<Result<_, _>>()?,
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        let namespace = self.namespace.as_deref();
        namespace.is_none_or(|namespace| namespace == record.namespace())
            && self.fields.iter().all(|(field, equal, value)| {
                let found = match field {
                    Field::Name => record.name(),
                    Field::Namespace => record.namespace(),
                    Field::Type => record.of_type(),
                };
                (found == value) == *equal
            })
            && self
                .labels
                .iter()
                .all(|(name, demand)| demand.holds(record.label(name)))
    }
}

impl Demand {
    fn holds(&self, value: Option<&str>) -> bool {
        let any = |values: &[String]| values.iter().any(|one| Some(one.as_str()) == value);
        match self {
            Demand::Exists => value.is_some(),
            Demand::Missing => value.is_none(),
            Demand::In(values) => any(values),
            Demand::NotIn(values) => !any(values),
        }
    }
}

/// The parts between commas that stand in no parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = text.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

fn label(text: &str) -> Result<(String, Demand), Failure> {
    let (name, demand) = if let Some((name, value)) = text.split_once("!=") {
        (name, Demand::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (name, Demand::In(vec![value.trim().to_owned()]))
    } else if let Some((name, values)) = text.split_once(" notin ") {
        (name, Demand::NotIn(set(values)?))
    } else if let Some((name, values)) = text.split_once(" in ") {
        (name, Demand::In(set(values)?))
    } else if let Some(name) = text.strip_prefix('!') {
        (name, Demand::Missing)
    } else {
        (text, Demand::Exists)
    };
    let name = name.trim();
    if name.is_empty() || name.contains([' ', '(', ')']) {
        return Err(unreadable(text));
    }
    Ok((name.to_owned(), demand))
}

fn set(text: &str) -> Result<Vec<String>, Failure> {
    let inner = text.trim().strip_prefix('(');
    let inner = inner.and_then(|inner| inner.strip_suffix(')'));
    let values = inner.ok_or_else(|| unreadable(text))?.split(',');
    Ok(values.map(|value| value.trim().to_owned()).collect())
}

fn field(text: &str) -> Result<(Field, bool, String), Failure> {
    let parts = text
        .split_once("!=")
        .map(|(name, value)| (name, false, value));
    let parts = parts.or_else(|| {
        let (name, value) = text.split_once("==").or_else(|| text.split_once('='))?;
        Some((name, true, value))
    });
    let (name, equal, value) = parts.ok_or_else(|| unreadable(text))?;
    let field = match name.trim() {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        "type" => Field::Type,
        other => {
            let message = format!("field label not supported: {other}");
            return Err(Failure::new(400, message));
        }
    };
    Ok((field, equal, value.trim().to_owned()))
}

fn unreadable(text: &str) -> Failure {
    Failure::new(400, format!("unable to parse requirement: {text:?}"))
}
