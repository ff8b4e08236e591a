//! Fragments of several origins → one document: who says what, and what two say at once.
//!
//! All files are one source: within it a name may be given once. Other sources will rank behind
//! files here, by the order of [`Origin`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::at::{At, Mark};
use crate::compile::report::{MAPPING, Path, Report};
use crate::document::{self, Document, Text};
use crate::fragment::{Content, Fragment, Origin};
use crate::problem::Problem;
use crate::revision::Key;
use crate::table::{Entry, Table, hash};

const NAMESPACE: &str = "default";

/// A document and who said it. Of its revisions, only the names stay once they are compiled; its
/// routes are kept packed, because they are looked at again only to tell people where something
/// stands, or when the domain changes.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) origin: Origin,
    /// Position in the stream.
    ordinal: u32,
    domain: Option<Box<At<Text>>>,
    gateway: Option<Box<At<document::Gateway>>>,
    routes: Box<[Packed]>,
    /// Of the routes, then of the revisions.
    names: Box<[(Key, Mark)]>,
}

/// A route as written, in a fifth of the memory.
#[derive(Debug)]
struct Packed(Box<[u8]>);

impl Packed {
    fn of(route: &At<document::Route>) -> Packed {
        // Neither can fail: there is memory, and every length is known.
        let bytes = postcard::to_allocvec(&(route, &route.value.order)).unwrap_or_default();
        Packed(bytes.into())
    }

    fn route(&self) -> Option<At<document::Route>> {
        let (mut route, order): (At<document::Route>, _) = postcard::from_bytes(&self.0).ok()?;
        route.value.order = order;
        Some(route)
    }
}

/// A route or revision within a document.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) said: Arc<Said>,
    /// Into the names of the document.
    place: u32,
}

impl Item {
    /// Its position in the list it stands in.
    pub(crate) fn index(&self) -> usize {
        let place = self.place as usize;
        place.checked_sub(self.said.routes.len()).unwrap_or(place)
    }

    pub(crate) fn key(&self) -> &Key {
        &self.said.names[self.place as usize].0
    }

    /// Where its name is written.
    fn mark(&self) -> Mark {
        self.said.names[self.place as usize].1
    }

    /// What items are ordered by.
    pub(crate) fn place(&self) -> (&Origin, u32, u32) {
        (&self.said.origin, self.said.ordinal, self.place)
    }

    /// The route, if this is one.
    pub(crate) fn route(&self) -> Option<At<document::Route>> {
        self.said.routes.get(self.place as usize)?.route()
    }
}

impl Entry for Item {
    fn hash(&self) -> u64 {
        self.key().hash()
    }
}

#[derive(Clone, Debug)]
struct Says {
    origin: Origin,
    documents: Arc<[Arc<Said>]>,
}

impl Entry for Says {
    fn hash(&self) -> u64 {
        hash_origin(&self.origin)
    }
}

fn hash_origin(origin: &Origin) -> u64 {
    hash(origin.name().as_bytes())
}

/// Everything that is said, persistent like the tables it is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged {
    says: Table<Says>,
    pub(crate) routes: Table<Item>,
    pub(crate) revisions: Table<Item>,
    /// Documents that give a domain.
    domains: Arc<Vec<Arc<Said>>>,
    /// Documents that give process options.
    gateways: Arc<Vec<Arc<Said>>>,
}

/// A revision as it stands in a fragment of this batch.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) item: Item,
    pub(crate) revision: At<document::Revision>,
}

/// What a batch may have changed.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) routes: BTreeSet<Key>,
    /// `None`: no longer there, unless another entry says so.
    pub(crate) revisions: BTreeMap<Key, Option<Written>>,
    pub(crate) domain: bool,
    pub(crate) gateway: bool,
    /// Given twice: checked, so that everything about them is told at once.
    pub(crate) surplus_routes: Vec<Item>,
    pub(crate) surplus_revisions: Vec<Written>,
    /// Some fragment could not be read in full.
    pub(crate) incomplete: bool,
    /// One copy of each namespace for all names of the batch.
    namespaces: BTreeSet<Arc<str>>,
}

impl Merged {
    /// Takes a batch in. Everything old goes before anything new comes, so that a name may move
    /// from one file to another.
    pub(crate) fn take_in(
        &mut self,
        changes: Vec<Fragment>,
        problems: &mut Vec<Problem>,
    ) -> Touched {
        let newest: BTreeMap<Origin, Content> = changes
            .into_iter()
            .map(|fragment| (fragment.origin, fragment.content))
            .collect();
        let mut touched = Touched::default();
        for origin in newest.keys() {
            self.forget(origin, &mut touched);
        }
        for (origin, content) in newest {
            let documents = match content {
                Content::Documents { documents, .. } => documents,
                Content::Broken {
                    problems: broken,
                    readable,
                    ..
                } => {
                    problems.extend(broken);
                    touched.incomplete = true;
                    readable
                }
                Content::Gone => continue,
            };
            let documents = documents.into_iter().zip(0..);
            let documents = documents
                .map(|(document, ordinal)| {
                    self.learn(&origin, document, ordinal, &mut touched, problems)
                })
                .collect();
            let says = Says { origin, documents };
            let origin = says.origin.clone();
            self.says.put(says, |says| says.origin == origin);
        }
        touched
    }

    fn forget(&mut self, origin: &Origin, touched: &mut Touched) {
        let gone = self
            .says
            .remove(hash_origin(origin), |says| says.origin == *origin);
        let Some(gone) = gone else { return };
        for said in gone.documents.iter() {
            let (routes, revisions) = said.names.split_at(said.routes.len());
            for (key, _) in routes {
                self.routes.remove(key.hash(), |item| item.key() == key);
                touched.routes.insert(key.clone());
            }
            for (key, _) in revisions {
                self.revisions.remove(key.hash(), |item| item.key() == key);
                touched.revisions.insert(key.clone(), None);
            }
            if said.domain.is_some() {
                Arc::make_mut(&mut self.domains).retain(|other| !Arc::ptr_eq(said, other));
                touched.domain = true;
            }
            if said.gateway.is_some() {
                Arc::make_mut(&mut self.gateways).retain(|other| !Arc::ptr_eq(said, other));
                touched.gateway = true;
            }
        }
    }

    fn learn(
        &mut self,
        origin: &Origin,
        document: Document,
        ordinal: u32,
        touched: &mut Touched,
        problems: &mut Vec<Problem>,
    ) -> Arc<Said> {
        let routes = document.routes.unwrap_or_default();
        let revisions = document.revisions.unwrap_or_default();
        let mut names = Vec::with_capacity(routes.len() + revisions.len());
        let known = &mut touched.namespaces;
        names.extend(routes.iter().map(|at| name_of(&at.value, known)));
        names.extend(revisions.iter().map(|at| name_of(&at.value, known)));
        let said = Arc::new(Said {
            origin: origin.clone(),
            ordinal,
            domain: document.domain.map(Box::new),
            gateway: document.gateway.map(Box::new),
            routes: routes.iter().map(Packed::of).collect(),
            names: names.into(),
        });
        let mut items = (0..).map(|place| Item {
            said: Arc::clone(&said),
            place,
        });
        for item in items.by_ref().take(routes.len()) {
            touched.routes.insert(item.key().clone());
            let surplus = declare(&mut self.routes, item, problems, "routes");
            touched.surplus_routes.extend(surplus);
        }
        for (revision, item) in revisions.into_iter().zip(items) {
            let key = item.key().clone();
            let surplus = declare(&mut self.revisions, item.clone(), problems, "revisions");
            let written = Written { item, revision };
            match surplus {
                None => drop(touched.revisions.insert(key, Some(written))),
                Some(_) => touched.surplus_revisions.push(written),
            }
        }
        if said.domain.is_some() {
            Arc::make_mut(&mut self.domains).push(Arc::clone(&said));
            touched.domain = true;
        }
        if said.gateway.is_some() {
            Arc::make_mut(&mut self.gateways).push(Arc::clone(&said));
            touched.gateway = true;
        }
        said
    }

    pub(crate) fn route(&self, key: &Key) -> Option<&Item> {
        self.routes.get(key.hash(), |item| item.key() == key)
    }

    /// The one domain that is given, in the words of whoever gives it.
    pub(crate) fn domain(&self, problems: &mut Vec<Problem>) -> Option<(&Origin, &At<Text>)> {
        let given = |said: &'_ Arc<Said>| said.domain.is_some();
        let mut all: Vec<&Arc<Said>> = self.domains.iter().filter(|said| given(said)).collect();
        all.sort_by_key(|said| (&said.origin, said.ordinal));
        let of = |said: &'_ &Arc<Said>| said.domain.as_ref().map(|at| at.value.clone());
        let first = all.first()?;
        if all.iter().any(|said| of(said) != of(first)) {
            for said in &all {
                let other = all.iter().find(|other| of(other) != of(said));
                let Some((at, other)) = said.domain.as_ref().zip(other) else {
                    continue;
                };
                let place = other.domain.as_ref().map(|at| at.mark);
                let hint = format!("keep one; the other is at {}", other.at(place));
                let mut report = report_for(&said.origin, problems);
                let path = Path::Root.key("domain");
                report.add(&path, at.mark, &at.value, "two different domains", hint);
            }
        }
        let at = first.domain.as_deref()?;
        Some((&first.origin, at))
    }

    /// The one set of process options that is given.
    pub(crate) fn gateway(
        &self,
        problems: &mut Vec<Problem>,
    ) -> Option<(&Origin, &document::Gateway)> {
        let mut all: Vec<&Arc<Said>> = self.gateways.iter().collect();
        all.sort_by_key(|said| (&said.origin, said.ordinal));
        let place = |said: &Said| said.gateway.as_ref().map(|at| at.mark);
        for (position, said) in all.iter().enumerate().filter(|_| all.len() > 1) {
            let other = all[usize::from(position == 0)];
            let hint = format!("merge it with the one at {}", other.at(place(other)));
            let mut report = report_for(&said.origin, problems);
            let mark = place(said).unwrap_or_default();
            let path = Path::Root.key("gateway");
            report.add(
                &path,
                mark,
                MAPPING,
                "`gateway` is given more than once",
                hint,
            );
        }
        let first = all.first()?;
        let at = first.gateway.as_ref()?;
        Some((&first.origin, &at.value))
    }
}

impl Said {
    /// `file:line` of a place in it.
    pub(crate) fn at(&self, mark: Option<Mark>) -> String {
        let line = mark.unwrap_or_default().line;
        format!("{}:{line}", self.origin.name())
    }
}

pub(crate) fn report_for<'a>(origin: &'a Origin, problems: &'a mut Vec<Problem>) -> Report<'a> {
    Report { origin, problems }
}

/// What has a name and a namespace.
pub(crate) trait Named {
    fn name(&self) -> &At<Text>;
    fn namespace(&self) -> Option<&At<Text>>;
}

impl Named for document::Route {
    fn name(&self) -> &At<Text> {
        &self.name
    }

    fn namespace(&self) -> Option<&At<Text>> {
        self.namespace.as_ref()
    }
}

impl Named for document::Revision {
    fn name(&self) -> &At<Text> {
        &self.name
    }

    fn namespace(&self) -> Option<&At<Text>> {
        self.namespace.as_ref()
    }
}

/// The name, and where it is written.
fn name_of(named: &impl Named, namespaces: &mut BTreeSet<Arc<str>>) -> (Key, Mark) {
    let namespace = named.namespace().map_or(NAMESPACE, |at| &at.value);
    let namespace = match namespaces.get(namespace) {
        Some(known) => Arc::clone(known),
        None => {
            let new: Arc<str> = namespace.into();
            namespaces.insert(Arc::clone(&new));
            new
        }
    };
    let name = (*named.name().value).into();
    (Key { namespace, name }, named.name().mark)
}

/// Enters an item of a list; a name that is there already is an error at both places, and the item
/// handed back.
fn declare(
    table: &mut Table<Item>,
    item: Item,
    problems: &mut Vec<Problem>,
    list: &'static str,
) -> Option<Item> {
    let key = item.key();
    let present = table.get(key.hash(), |present| present.key() == key);
    let Some(present) = present else {
        let key = key.clone();
        table.put(item, |present| *present.key() == key);
        return None;
    };
    for (one, other) in [(present, &item), (&item, present)] {
        let what = list.trim_end_matches('s');
        let problem = format!("the {what} {key} is given twice");
        let place = other.said.at(Some(other.mark()));
        let hint = format!("rename or remove one; the other is at {place}");
        let list = Path::Root.key(list);
        let path = list.item(one.index());
        let mut report = report_for(&one.said.origin, problems);
        report.add(&path.key("name"), one.mark(), &key.name, problem, hint);
    }
    Some(item)
}
