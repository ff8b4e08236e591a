//! Writing to the API server: statuses, and the finalizer that Kourier leaves behind.

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::ingress::{FINALIZER, Ingress};
use super::state::{Identity, Write};
use crate::revision::Key;

/// How often a write is tried again that others come before.
const ATTEMPTS: usize = 5;
const CONFLICT: u16 = 409;
const NOT_FOUND: u16 = 404;

/// The time, as Kubernetes writes it.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes a status; hands back the object as it then is, unless it is gone, not ours or about
/// something else by now.
pub(super) async fn status(
    client: &Client,
    identity: &Identity,
    mut write: Write,
) -> Result<Option<Ingress>, kube::Error> {
    let Key { namespace, name } = &write.ingress;
    let api: Api<Ingress> = Api::namespaced(client.clone(), namespace);
    for attempt in 1..=ATTEMPTS {
        let patch = json!({
            "metadata": {"resourceVersion": write.version},
            "status": write.status,
        });
        let parameters = PatchParams::default();
        match api
            .patch_status(name, &parameters, &Patch::Merge(patch))
            .await
        {
            Ok(object) => return Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == CONFLICT && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
        let Some(object) = api.get_opt(name).await? else {
            return Ok(None);
        };
        if !object.is_of(&identity.class) || !write.is_about(&object) {
            return Ok(None);
        }
        let before = object.status.0.clone().unwrap_or_default();
        let (standing, balancers) = (&write.standing, &identity.balancers);
        write.status = before.after(write.generation, standing, balancers, &now());
        if write.status == before {
            return Ok(Some(object));
        }
        write.version = object.metadata.resource_version.unwrap_or_default().into();
    }
    Ok(None)
}

/// Takes the finalizer from an object of ours that is on its way out.
pub(super) async fn finalizer(
    client: &Client,
    identity: &Identity,
    key: &Key,
) -> Result<(), kube::Error> {
    let api: Api<Ingress> = Api::namespaced(client.clone(), &key.namespace);
    for _ in 0..ATTEMPTS {
        let Some(object) = api.get_opt(&key.name).await? else {
            return Ok(());
        };
        let leaving = object.metadata.deletion_timestamp.is_some();
        if !leaving || !object.is_of(&identity.class) || !object.has_finalizer() {
            return Ok(());
        }
        let mut left = object.metadata.finalizers.unwrap_or_default();
        left.retain(|name| name != FINALIZER);
        let version = object.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": left}});
        match api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
    Ok(())
}
