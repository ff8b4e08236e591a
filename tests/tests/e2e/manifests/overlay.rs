//! What `kubectl kustomize` makes of an overlay, as far as ours need it: resources, components, and
//! patches that only add to maps, where a strategic merge and a plain one are the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What our kustomizations may say.
const KEYS: [&str; 5] = ["apiVersion", "kind", "resources", "components", "patches"];

/// The objects of one overlay, patched, and the files they came from.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) objects: Vec<Value>,
    pub(crate) files: BTreeSet<PathBuf>,
}

impl Overlay {
    pub(crate) fn of(directory: &Path) -> Overlay {
        let mut overlay = Overlay::default();
        overlay.add(directory);
        overlay
    }

    pub(crate) fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(move |object| object["kind"] == kind)
    }

    /// The one object of that kind and name.
    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> &Value {
        let mut found = self
            .of_kind(kind)
            .filter(|object| object["metadata"]["name"] == name);
        let object = found
            .next()
            .unwrap_or_else(|| panic!("there is no {kind} {name}"));
        assert!(found.next().is_none(), "there are two {kind}s {name}");
        object
    }

    fn add(&mut self, directory: &Path) {
        let path = directory.join("kustomization.yaml");
        let mut documents = read(&path);
        assert_eq!(documents.len(), 1, "{path:?}");
        let kustomization = documents.remove(0);
        for key in kustomization.as_object().unwrap().keys() {
            assert!(KEYS.contains(&key.as_str()), "{path:?} says `{key}`");
        }
        self.files.insert(path);
        for name in texts(&kustomization["resources"]) {
            let path = directory.join(name).canonicalize().expect(name);
            if path.is_dir() {
                self.add(&path);
            } else {
                self.objects.extend(read(&path));
                self.files.insert(path);
            }
        }
        for name in texts(&kustomization["components"]) {
            self.add(&directory.join(name).canonicalize().expect(name));
        }
        for patch in kustomization["patches"].as_array().unwrap_or(&Vec::new()) {
            let name = patch["path"].as_str().unwrap();
            let path = directory.join(name).canonicalize().expect(name);
            for patch in read(&path) {
                merge(self.named(&patch), &patch);
            }
            self.files.insert(path);
        }
    }

    fn named(&mut self, like: &Value) -> &mut Value {
        let mut objects = self.objects.iter_mut();
        objects
            .find(|object| identity(object) == identity(like))
            .unwrap_or_else(|| panic!("nothing to patch: {:?}", identity(like)))
    }
}

/// What an object is: its kind, namespace and name.
pub(crate) fn identity(object: &Value) -> [&str; 4] {
    let metadata = &object["metadata"];
    [
        &object["apiVersion"],
        &object["kind"],
        &metadata["namespace"],
        &metadata["name"],
    ]
    .map(|value| value.as_str().unwrap_or(""))
}

/// The documents of a file.
pub(crate) fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    parse(&text)
}

pub(crate) fn parse(text: &str) -> Vec<Value> {
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read_with_options(&mut bytes, serde_saphyr::Options::default());
    documents.map(Result::unwrap).collect()
}

pub(crate) fn texts(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().into_iter().flatten();
    list.map(|text| text.as_str().unwrap())
}

fn merge(object: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            let object = object.as_object_mut().expect("a map to patch");
            for (name, patch) in fields {
                merge(object.entry(name).or_insert_with(empty), patch);
            }
        }
        Value::Array(_) | Value::Null => panic!("kustomize has rules of its own for {patch}"),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => *object = patch.clone(),
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}
