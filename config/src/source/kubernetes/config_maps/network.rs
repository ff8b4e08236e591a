//! config-network: how Knative's parts reach each other. Most of it is for its controllers.

use super::read::Map;
use super::{BadValue, Data, Unheeded};

pub(super) const NAME: &str = "config-network";

const SYSTEM_INTERNAL_TLS: &str = "system-internal-tls";
const INTERNAL_ENCRYPTION: &str = "internal-encryption";
const MESH: &str = "mesh-compatibility-mode";
const ADDRESSABLE: &str = "enable-mesh-pod-addressability";

/// What config-network says to a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `system-internal-tls`, else the older `internal-encryption`: pods and activators speak TLS
    /// among themselves, so requests go to pods over it.
    pub system_internal_tls: bool,
    /// `mesh-compatibility-mode`. Pods are always asked themselves whether they can serve, as in
    /// `auto`; the others have no effect.
    pub mesh: Mesh,
    /// `enable-mesh-pod-addressability`: probes are to carry the name of a pod's Service for a mesh.
    /// Without effect.
    pub mesh_pod_addressability: bool,
}

/// How pods are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mesh {
    /// At their own addresses, once they have answered there.
    #[default]
    Auto,
    /// Through the address of their Service.
    Enabled,
    /// At their own addresses, as Kubernetes says.
    Disabled,
}

impl Network {
    pub(super) fn of(data: &Data) -> Result<Network, BadValue> {
        let map = Map { name: NAME, data };
        let tls = [("enabled", true), ("disabled", false)];
        let older = map.flag(INTERNAL_ENCRYPTION, false)?;
        let modes = [
            ("auto", Mesh::Auto),
            ("enabled", Mesh::Enabled),
            ("disabled", Mesh::Disabled),
        ];
        Ok(Network {
            system_internal_tls: map.word(SYSTEM_INTERNAL_TLS, older, &tls)?,
            mesh: map.word(MESH, Mesh::Auto, &modes)?,
            mesh_pod_addressability: map.flag(ADDRESSABLE, false)?,
        })
    }

    pub(super) fn unheeded(&self) -> Vec<Unheeded> {
        let pods = "pods are asked at their own addresses";
        let said = [
            (self.mesh != Mesh::Auto, MESH, pods),
            (self.mesh_pod_addressability, ADDRESSABLE, pods),
        ];
        let said = said.into_iter().filter(|(is_set, ..)| *is_set);
        said.map(|(_, key, instead)| Unheeded {
            map: NAME,
            key,
            instead,
        })
        .collect()
    }
}
