//! What is watched, and which part of it.

use std::time::Duration;

use k8s_openapi::api::{core::v1 as core, discovery::v1::EndpointSlice};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::super::cluster::RevisionObject;
use super::super::ingress::Ingress;
use super::super::state::{Kind, Object};
use super::super::watch::{Event, Plan, streams, watch};

/// How long the API server may take to say which version it is; then it is asked for what any can.
const VERSION_WITHIN: Duration = Duration::from_secs(3);
/// Endpoints that no controller of Kubernetes keeps: for the others there are slices.
const KEPT_BY_OTHERS: &str = "endpoints.kubernetes.io/managed-by!=endpoint-controller";
/// Secrets that hold certificates.
const CERTIFICATES: &str = "type=kubernetes.io/tls";
/// The one of Knative's own activator, which is of no such type where Knative's manifests made it.
const INTERNAL_CERTIFICATE: &str = "metadata.name=routing-serving-certs";

/// Watches every kind.
pub(super) async fn watch_all(
    client: Client,
    system_namespace: String,
    events: mpsc::Sender<Event>,
) {
    let version = tokio::time::timeout(VERSION_WITHIN, client.apiserver_version()).await;
    let version = version.ok().and_then(Result::ok);
    let all = Plan {
        streams: version.is_some_and(|version| streams(&version.major, &version.minor)),
        ..Plan::default()
    };
    let labelled = |labels| Plan {
        labels: Some(labels),
        ..all.clone()
    };
    let chosen = |fields| Plan {
        fields: Some(fields),
        ..all.clone()
    };
    let (api, told) = (|| client.clone(), || events.clone());
    let ingresses = Api::<Ingress>::all(api());
    let services = Api::<core::Service>::all(api());
    let slices = Api::<EndpointSlice>::all(api());
    let endpoints = Api::<core::Endpoints>::all(api());
    let revisions = Api::<RevisionObject>::all(api());
    let maps = Api::<core::ConfigMap>::namespaced(api(), &system_namespace);
    let internal = Api::<core::Secret>::namespaced(api(), &system_namespace);
    let secrets = Api::<core::Secret>::all(api());
    let kept = labelled(KEPT_BY_OTHERS);
    let (ours, theirs) = (chosen(INTERNAL_CERTIFICATE), chosen(CERTIFICATES));
    tokio::join!(
        watch(
            ingresses,
            Kind::Ingress,
            all.clone(),
            Object::Ingress,
            told()
        ),
        watch(
            services,
            Kind::Service,
            all.clone(),
            Object::Service,
            told()
        ),
        watch(slices, Kind::Slice, all.clone(), Object::Slice, told()),
        watch(endpoints, Kind::Endpoints, kept, Object::Endpoints, told()),
        watch(
            revisions,
            Kind::Revision,
            all.clone(),
            Object::Revision,
            told()
        ),
        watch(
            maps,
            Kind::ConfigMap,
            all.clone(),
            Object::ConfigMap,
            told()
        ),
        watch(
            internal,
            Kind::InternalSecret,
            ours,
            Object::InternalSecret,
            told()
        ),
        watch(secrets, Kind::Secret, theirs, Object::Secret, told()),
    );
}
