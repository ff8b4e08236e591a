//! What the API server keeps: objects of every kind, one count of versions, and the latest changes
//! for those who watch.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::failure::Failure;
use super::record::{Key, Record};
use super::rules::{self, Part};
use super::selector::Selection;
use crate::kubernetes::Kind;

/// Changes of one kind that are remembered; who is further behind must list again. More than any
/// test makes while a watch is silent.
const HISTORY: usize = 100_000;

/// Where a fresh server's versions begin: so that no test takes them for counts of objects.
const FIRST_VERSION: u64 = 1000;

#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    /// Nobody may begin to watch from before that one.
    compacted: u64,
    tables: BTreeMap<(&'static str, &'static str), Table>,
}

#[derive(Debug)]
struct Table {
    kind: Kind,
    objects: BTreeMap<Key, Arc<Record>>,
    history: VecDeque<Change>,
    /// The newest version that the history holds no longer.
    forgotten: u64,
}

/// One change. Of a deletion, `after` is the last state.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) before: Option<Arc<Record>>,
    pub(super) after: Arc<Record>,
    pub(super) deleted: bool,
}

/// Part of a list, and where it goes on.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) version: u64,
    pub(super) records: Vec<Arc<Record>>,
    pub(super) next: Option<Key>,
    /// How many come after these; only told where nothing is selected.
    pub(super) remaining: usize,
}

/// What became of an object.
#[derive(Debug)]
pub(super) enum Outcome {
    Created(Arc<Record>),
    Stored(Arc<Record>),
    Deleted(Arc<Record>),
}

impl Outcome {
    pub(super) fn record(&self) -> &Arc<Record> {
        match self {
            Outcome::Created(record) | Outcome::Stored(record) | Outcome::Deleted(record) => record,
        }
    }
}

impl Store {
    pub(super) fn new(kinds: &[Kind]) -> Store {
        let mut store = Store {
            version: FIRST_VERSION,
            compacted: 0,
            tables: BTreeMap::new(),
        };
        for kind in kinds {
            store.register(*kind);
        }
        store
    }

    pub(super) fn register(&mut self, kind: Kind) {
        let table = Table {
            kind,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: 0,
        };
        self.tables.insert((kind.group, kind.plural), table);
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.tables.values().map(|table| &table.kind)
    }

    /// The kind of a path.
    pub(super) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let mut kinds = self.kinds();
        let found = kinds.find(|kind| (kind.group, kind.plural) == (group, plural));
        found.filter(|kind| kind.version == version).copied()
    }

    fn table(&self, kind: &Kind) -> &Table {
        &self.tables[&(kind.group, kind.plural)]
    }

    /// From now on nobody may begin where they are: watches and lists that would go on are told
    /// that their versions are gone. Open watches go on.
    pub(super) fn compact(&mut self) {
        // A version that nobody has seen, so that what was listed a moment ago is too old as well.
        self.version += 1;
        self.compacted = self.version;
    }

    /// Whether changes after that version can still be told.
    pub(super) fn reaches(&self, kind: &Kind, version: u64) -> Result<(), Failure> {
        let oldest = self.compacted.max(self.table(kind).forgotten);
        if version < oldest {
            return Err(Failure::gone(version, oldest));
        }
        Ok(())
    }

    pub(super) fn get(&self, kind: &Kind, key: &Key) -> Result<Arc<Record>, Failure> {
        let found = self.table(kind).objects.get(key);
        found
            .cloned()
            .ok_or_else(|| Failure::not_found(kind, &key.1))
    }

    /// Objects from `start` on, at most `limit`; 0 is all. Pages show the objects as they are, and
    /// all pages of a list have `version`, that of the first: what changes between two of them
    /// comes again to those who watch from there.
    pub(super) fn list(
        &self,
        kind: &Kind,
        selection: &Selection,
        limit: usize,
        start: Option<(u64, Key)>,
    ) -> Result<Page, Failure> {
        let table = self.table(kind);
        let version = start.as_ref().map_or(self.version, |(version, _)| *version);
        if version < self.compacted {
            let message = "The provided continue parameter is too old to display a consistent list \
                           result. You can start a new list without the continue parameter.";
            return Err(Failure::new(410, message));
        }
        let bound = start.map_or(Bound::Unbounded, |(_, key)| Bound::Excluded(key));
        let mut found = table.objects.range((bound, Bound::Unbounded));
        let mut found = found
            .by_ref()
            .map(|(_, record)| record)
            .filter(|record| selection.matches(record));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let records: Vec<_> = found.by_ref().take(limit).cloned().collect();
        let remaining = found.count();
        let next = records.last().filter(|_| remaining > 0);
        let next = next.map(|last| last.key().clone());
        Ok(Page {
            version,
            records,
            next,
            remaining,
        })
    }

    /// At most `count` changes of a kind after that version, in their order.
    pub(super) fn since(
        &self,
        kind: &Kind,
        version: u64,
        count: usize,
    ) -> Result<Vec<Change>, Failure> {
        let table = self.table(kind);
        if version < table.forgotten {
            return Err(Failure::gone(version, table.forgotten));
        }
        let start = table
            .history
            .partition_point(|change| change.after.version <= version);
        Ok(table.history.range(start..).take(count).cloned().collect())
    }

    /// `namespace` is the path's.
    pub(super) fn create(
        &mut self,
        kind: &Kind,
        namespace: &str,
        object: Value,
    ) -> Result<Outcome, Failure> {
        let object = rules::fresh(kind, namespace, object)?;
        let record = Arc::new(Record::new(kind, self.version + 1, object));
        if self.table(kind).objects.contains_key(record.key()) {
            return Err(Failure::exists(kind, record.name()));
        }
        self.version += 1;
        self.remember(kind, None, &record, false);
        Ok(Outcome::Created(record))
    }

    /// Changes an object to what `edit` makes of it. Nothing happens when that is what it was.
    pub(super) fn update(
        &mut self,
        kind: &Kind,
        key: &Key,
        part: Part,
        edit: impl FnOnce(&Value) -> Result<Value, Failure>,
    ) -> Result<Outcome, Failure> {
        let before = self.get(kind, key)?;
        let old = before.object();
        let Some(object) = rules::settled(kind, part, &old, edit(&old)?)? else {
            return Ok(Outcome::Stored(before));
        };
        Ok(self.put(kind, &before, object))
    }

    /// Deletes an object, or marks it as to be deleted while somebody has a finalizer in it.
    pub(super) fn delete(
        &mut self,
        kind: &Kind,
        key: &Key,
        preconditions: &Value,
    ) -> Result<Outcome, Failure> {
        let before = self.get(kind, key)?;
        let mut object = before.object();
        rules::check(kind, &object, preconditions)?;
        if !rules::is_held(&object) {
            return Ok(self.bury(kind, &before, object));
        }
        if rules::is_leaving(&object) {
            return Ok(Outcome::Stored(before));
        }
        rules::mark_leaving(kind, &mut object);
        Ok(self.put(kind, &before, object))
    }

    fn put(&mut self, kind: &Kind, before: &Arc<Record>, object: Value) -> Outcome {
        if rules::is_leaving(&object) && !rules::is_held(&object) {
            return self.bury(kind, before, object);
        }
        self.version += 1;
        let after = Arc::new(Record::new(kind, self.version, object));
        self.remember(kind, Some(before), &after, false);
        Outcome::Stored(after)
    }

    fn bury(&mut self, kind: &Kind, before: &Arc<Record>, object: Value) -> Outcome {
        self.version += 1;
        let after = Arc::new(Record::new(kind, self.version, object));
        self.remember(kind, Some(before), &after, true);
        Outcome::Deleted(after)
    }

    fn remember(
        &mut self,
        kind: &Kind,
        before: Option<&Arc<Record>>,
        after: &Arc<Record>,
        deleted: bool,
    ) {
        let table = self
            .tables
            .get_mut(&(kind.group, kind.plural))
            .expect("kinds are looked up");
        if deleted {
            table.objects.remove(after.key());
        } else {
            table.objects.insert(after.key().clone(), after.clone());
        }
        if table.history.len() == HISTORY {
            let oldest = table.history.pop_front();
            table.forgotten = oldest.map_or(table.forgotten, |oldest| oldest.after.version);
        }
        table.history.push_back(Change {
            before: before.cloned(),
            after: after.clone(),
            deleted,
        });
    }
}
