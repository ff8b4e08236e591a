//! Kinds of objects, and what an API server does with each.

/// A kind as its group's API has it. Those that nothing here names can be made by a test, and
/// registered with the fake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `""` for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub name: &'static str,
    pub namespaced: bool,
    /// Whether `status` is a subresource: then only writes to that one change it.
    pub status: bool,
    /// Whether `metadata.generation` counts changes of what is wanted.
    pub generation: bool,
    /// Whether an update must say which version it is of.
    pub versioned: bool,
    /// Whether it comes from a CustomResourceDefinition. Items in lists of others do not say their
    /// kind.
    pub custom: bool,
}

/// What most kinds of Kubernetes itself are like.
const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    plural: "",
    name: "",
    namespaced: true,
    status: false,
    generation: false,
    versioned: false,
    custom: false,
};

const CUSTOM: Kind = Kind {
    status: true,
    generation: true,
    versioned: true,
    custom: true,
    ..PLAIN
};

pub const NAMESPACE: Kind = Kind {
    plural: "namespaces",
    name: "Namespace",
    namespaced: false,
    status: true,
    ..PLAIN
};

pub const SERVICE: Kind = Kind {
    plural: "services",
    name: "Service",
    status: true,
    ..PLAIN
};

pub const ENDPOINTS: Kind = Kind {
    plural: "endpoints",
    name: "Endpoints",
    ..PLAIN
};

pub const SECRET: Kind = Kind {
    plural: "secrets",
    name: "Secret",
    ..PLAIN
};

pub const CONFIG_MAP: Kind = Kind {
    plural: "configmaps",
    name: "ConfigMap",
    ..PLAIN
};

pub const POD: Kind = Kind {
    plural: "pods",
    name: "Pod",
    status: true,
    generation: true,
    ..PLAIN
};

pub const EVENT: Kind = Kind {
    plural: "events",
    name: "Event",
    ..PLAIN
};

/// The same objects as [`EVENT`]'s to a real API server, others to the fake.
pub const EVENT_V1: Kind = Kind {
    group: "events.k8s.io",
    ..EVENT
};

pub const ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    plural: "endpointslices",
    name: "EndpointSlice",
    generation: true,
    ..PLAIN
};

pub const LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    plural: "leases",
    name: "Lease",
    versioned: true,
    ..PLAIN
};

/// Knative's, not that of `networking.k8s.io`.
pub const INGRESS: Kind = Kind {
    group: "networking.internal.knative.dev",
    version: "v1alpha1",
    plural: "ingresses",
    name: "Ingress",
    ..CUSTOM
};

pub const REVISION: Kind = Kind {
    group: "serving.knative.dev",
    plural: "revisions",
    name: "Revision",
    ..CUSTOM
};

/// What every API server of the harness knows.
pub const KNOWN: [Kind; 13] = [
    NAMESPACE,
    SERVICE,
    ENDPOINTS,
    SECRET,
    CONFIG_MAP,
    POD,
    EVENT,
    EVENT_V1,
    ENDPOINT_SLICE,
    LEASE,
    INGRESS,
    REVISION,
    CUSTOM_RESOURCE_DEFINITION,
];

pub const CUSTOM_RESOURCE_DEFINITION: Kind = Kind {
    group: "apiextensions.k8s.io",
    plural: "customresourcedefinitions",
    name: "CustomResourceDefinition",
    namespaced: false,
    status: true,
    generation: true,
    ..PLAIN
};

impl Kind {
    /// `v1`, or `GROUP/VERSION`.
    #[must_use]
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `services`, or `ingresses.networking.internal.knative.dev`: as messages of errors say it.
    #[must_use]
    pub fn resource(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The path of all objects of a namespace, or of all there are.
    #[must_use]
    pub fn collection(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() {
            "/api"
        } else {
            "/apis"
        };
        let version = self.api_version();
        if namespace.is_empty() {
            format!("{root}/{version}/{}", self.plural)
        } else {
            format!("{root}/{version}/namespaces/{namespace}/{}", self.plural)
        }
    }

    /// The path of one object; the namespace is `""` for what is in none.
    #[must_use]
    pub fn path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection(namespace))
    }
}
