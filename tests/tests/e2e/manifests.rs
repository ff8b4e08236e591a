//! What is installed in a cluster fits together: the manifests with the API, with each other, with
//! the gateway's file, and with the image. It needs no cluster.

mod image;
mod kinds;
mod overlay;
mod page;
mod rights;
mod stage;
mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::body::full;
use tests::client::with;
use tests::{Backend, Client, Launch, Wire, request};

use overlay::{Overlay, identity, parse, texts};
use stage::KOURIER;

/// Knative's namespace, and ours: docs/decisions/0021.
const NAMESPACE: &str = "knative-serving";

fn root() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.canonicalize().unwrap()
}

fn kubernetes() -> PathBuf {
    root().join("deploy/kubernetes")
}

/// All overlays by name, and one with every component on it that none of them has.
fn overlays() -> BTreeMap<String, Overlay> {
    let entries = std::fs::read_dir(kubernetes().join("overlays")).unwrap();
    let overlays = entries.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, Overlay::of(&entry.path()))
    });
    let overlays: BTreeMap<_, _> = overlays.collect();
    assert!(overlays.contains_key("gateway") && overlays.contains_key("complete"));
    overlays
}

fn yaml_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "yaml") {
            files.push(path);
        }
    }
}

#[test]
fn every_file_belongs_to_a_kustomization() {
    let mut named: BTreeSet<PathBuf> = BTreeSet::new();
    for overlay in overlays().into_values() {
        named.extend(overlay.files);
    }
    let lone = Overlay::of(&kubernetes().join("components/network-policy"));
    named.extend(lone.files);
    let mut files = Vec::new();
    yaml_files(&kubernetes(), &mut files);
    let named: BTreeSet<_> = named
        .iter()
        .map(|path| path.canonicalize().unwrap())
        .collect();
    let files: BTreeSet<_> = files.into_iter().collect();
    assert_eq!(files, named);
}

/// Our own resolver stands in for kustomize in the other tests, which therefore need none.
#[test]
fn overlays_are_what_kustomize_makes_of_them() {
    for (name, overlay) in overlays() {
        let directory = kubernetes().join("overlays").join(&name);
        let Ok(output) = Command::new("kubectl")
            .arg("kustomize")
            .arg(directory)
            .output()
        else {
            eprintln!("skipped: there is no kubectl");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let mut theirs = parse(std::str::from_utf8(&output.stdout).unwrap());
        let mut ours = overlay.objects;
        theirs.sort_by_key(|object| identity(object).map(str::to_owned));
        ours.sort_by_key(|object| identity(object).map(str::to_owned));
        assert_eq!(ours, theirs, "{name}");
    }
}

fn container(overlay: &Overlay) -> &Value {
    let pod = &overlay.get("Deployment", "tidegate")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
    &pod["containers"][0]
}

fn labels(overlay: &Overlay) -> &Value {
    &overlay.get("Deployment", "tidegate")["spec"]["template"]["metadata"]["labels"]
}

/// Whether a selector of labels, with operators or without, takes pods with these.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector.get("matchLabels").unwrap_or(&Value::Null);
    let equal = equal.as_object().into_iter().flatten();
    let operators = selector["matchExpressions"].as_array();
    equal
        .into_iter()
        .all(|(name, value)| labels[name] == *value)
        && operators.into_iter().flatten().all(|one| {
            assert_eq!(one["operator"], "NotIn");
            let value = &labels[one["key"].as_str().unwrap()];
            !one["values"].as_array().unwrap().contains(value)
        })
}

/// Number of the container's port with that name.
#[track_caller]
fn port(overlay: &Overlay, name: &Value) -> u64 {
    let ports = container(overlay)["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == *name);
    let port = port.unwrap_or_else(|| panic!("the container has no port {name}"));
    port["containerPort"].as_u64().unwrap()
}

#[test]
fn objects_are_in_one_namespace_and_refer_to_what_is_there() {
    for (name, overlay) in overlays() {
        let cluster_wide = ["ClusterRole", "ClusterRoleBinding"];
        for object in &overlay.objects {
            let [_, kind, namespace, object] = identity(object);
            let expected = if cluster_wide.contains(&kind) {
                ""
            } else {
                NAMESPACE
            };
            assert_eq!(namespace, expected, "{kind} {object} of {name}");
        }
        let bindings = overlay.of_kind("ClusterRoleBinding");
        for binding in bindings.chain(overlay.of_kind("RoleBinding")) {
            let role = &binding["roleRef"];
            overlay.get(
                role["kind"].as_str().unwrap(),
                role["name"].as_str().unwrap(),
            );
            for subject in binding["subjects"].as_array().unwrap() {
                overlay.get("ServiceAccount", subject["name"].as_str().unwrap());
                assert_eq!(subject["namespace"], NAMESPACE);
            }
        }
        let pod = &overlay.get("Deployment", "tidegate")["spec"]["template"]["spec"];
        overlay.get(
            "ServiceAccount",
            pod["serviceAccountName"].as_str().unwrap(),
        );
        let target = &overlay.get("HorizontalPodAutoscaler", "tidegate")["spec"]["scaleTargetRef"];
        assert_eq!(target["apiVersion"], "apps/v1");
        overlay.get(
            target["kind"].as_str().unwrap(),
            target["name"].as_str().unwrap(),
        );
        for volume in pod["volumes"].as_array().unwrap() {
            overlay.get("ConfigMap", volume["configMap"]["name"].as_str().unwrap());
            let mounts = container(&overlay)["volumeMounts"].as_array().unwrap();
            assert!(mounts.iter().any(|mount| mount["name"] == volume["name"]));
        }
    }
}

#[test]
fn selectors_and_ports_lead_to_the_pods() {
    for (name, overlay) in overlays() {
        let labels = labels(&overlay);
        let spec = &overlay.get("Deployment", "tidegate")["spec"];
        assert!(selects(&spec["selector"], labels));
        let constraints = &spec["template"]["spec"]["topologySpreadConstraints"];
        for constraint in constraints.as_array().unwrap() {
            assert!(selects(&constraint["labelSelector"], labels));
        }
        for service in overlay.of_kind("Service") {
            let selector = json!({"matchLabels": service["spec"]["selector"]});
            assert!(selects(&selector, labels), "{service} of {name}");
        }
        let leads = |service: &str, number: u64| {
            let ports = overlay.get("Service", service)["spec"]["ports"].as_array();
            let port_of = ports.unwrap().iter().find(|port| port["port"] == number);
            port(&overlay, &port_of.unwrap()["targetPort"])
        };
        assert_eq!(leads("tidegate", 80), 8080);
        assert_eq!(leads("tidegate", 443), 8443);
        assert_eq!(leads("tidegate-internal", 80), 8081);
        assert_eq!(leads("tidegate-internal", 443), 8444);
        // Replicas find each other's internal listener by this name.
        let internal = &overlay.get("Service", "tidegate-internal")["spec"]["ports"][0];
        assert_eq!(
            *internal,
            json!({"name": "http2", "port": 80, "targetPort": "http-internal"})
        );
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            port(&overlay, &container(&overlay)[probe]["httpGet"]["port"]);
        }
        let annotations = &spec["template"]["metadata"]["annotations"];
        let admin = port(&overlay, &json!("admin")).to_string();
        assert_eq!(annotations["prometheus.io/port"], admin);
    }
}

#[test]
fn only_pods_of_the_complete_overlay_are_the_activator() {
    let overlays = overlays();
    // As Knative's objects select them.
    let service = json!({"matchLabels": {"app": "activator"}});
    let deployment = json!({"matchLabels": {"app": "activator", "role": "activator"}});
    for (name, overlay) in &overlays {
        let (labels, complete) = (labels(overlay), name == "complete");
        assert_eq!(selects(&service, labels), complete, "{name}");
        assert!(!selects(&deployment, labels), "{name}");
        // activator-pdb selects as the Service does, and of two budgets none lets a pod go.
        let budget = &overlay.get("PodDisruptionBudget", "tidegate")["spec"]["selector"];
        assert_eq!(selects(budget, labels), !complete, "{name}");
        // Ports that the Service has in Knative's manifests.
        for (name, number) in [
            ("activator-http", 8012),
            ("activator-h2c", 8013),
            ("admin", 9090),
        ] {
            assert_eq!(port(overlay, &json!(name)), number);
        }
    }
}

/// What may be done, in words `RESOURCE VERB`.
fn rights(overlay: &Overlay) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    for role in overlay
        .of_kind("ClusterRole")
        .chain(overlay.of_kind("Role"))
    {
        for rule in role["rules"].as_array().unwrap() {
            for resource in texts(&rule["resources"]) {
                rights.extend(texts(&rule["verbs"]).map(|verb| format!("{resource} {verb}")));
            }
        }
    }
    rights
}

#[test]
fn nothing_may_be_written_but_status_and_the_lease() {
    let expected = ["ingresses/status patch", "leases create", "leases update"];
    let expected = BTreeSet::from(expected.map(str::to_owned));
    for (name, overlay) in overlays() {
        let mut writes = rights(&overlay);
        writes.retain(|right| {
            let reading = ["get", "list", "watch"];
            !reading.contains(&right.split(' ').next_back().unwrap())
        });
        // Kourier's finalizer, for as long as the two are side by side.
        let finalizers = writes.remove("ingresses patch");
        assert_eq!(finalizers, name == "beside-kourier");
        assert_eq!(writes, expected, "{name}");
        // Leases and options of others are none of ours.
        for role in overlay.of_kind("ClusterRole") {
            for rule in role["rules"].as_array().unwrap() {
                for resource in texts(&rule["resources"]) {
                    assert!(!["leases", "configmaps", "*"].contains(&resource), "{rule}");
                }
                assert!(
                    !texts(&rule["apiGroups"]).any(|group| group == "*"),
                    "{rule}"
                );
            }
        }
    }
}

#[test]
fn pods_may_do_nothing_they_need_not() {
    for overlay in overlays().values() {
        let pod = &overlay.get("Deployment", "tidegate")["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        let context = &container(overlay)["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        for key in ["requests", "limits"] {
            assert!(container(overlay)["resources"][key]["memory"].is_string());
        }
    }
}

/// The files that the ConfigMap makes in the pods.
fn files(overlay: &Overlay) -> BTreeMap<String, String> {
    let data = &overlay.get("ConfigMap", "tidegate")["data"];
    serde_json::from_value(data.clone()).unwrap()
}

#[tokio::test]
async fn files_of_the_config_map_are_valid() {
    for (name, overlay) in overlays() {
        let mut launch = Launch::without_file().command(["validate", "-f", "etc"]);
        for (file, text) in files(&overlay) {
            launch = launch.file(&format!("etc/{file}"), &text);
        }
        let exit = launch.run().await;
        assert_eq!(exit.code(), Some(0), "{name}: {exit:#?}");
    }
}

#[test]
fn listeners_are_the_ports_of_the_container() {
    for overlay in overlays().values() {
        let gateway = &parse(&files(overlay)["tidegate.yaml"])[0]["gateway"];
        let listeners = gateway["listeners"].as_array().unwrap();
        let listens = |address: &Value| {
            let address: std::net::SocketAddr = address.as_str().unwrap().parse().unwrap();
            assert!(address.ip().is_unspecified());
            u64::from(address.port())
        };
        let mut open = BTreeMap::new();
        for listener in listeners {
            let audience = listener["audience"].as_str().unwrap();
            let tls = listener.get("tls").is_some();
            open.insert(listens(&listener["address"]), (audience, tls));
        }
        let expected = [
            (8080, ("public", false)),
            (8081, ("internal", false)),
            (8443, ("public", true)),
            (8444, ("internal", true)),
            (8012, ("activator", false)),
            (8013, ("activator", false)),
            (8112, ("activator", true)),
        ];
        assert_eq!(open, BTreeMap::from(expected));
        let mut numbers: BTreeSet<u64> = open.into_keys().collect();
        assert!(numbers.insert(listens(&gateway["admin"])));
        let ports = container(overlay)["ports"].as_array().unwrap();
        let declared = ports
            .iter()
            .map(|port| port["containerPort"].as_u64().unwrap());
        assert_eq!(declared.collect::<BTreeSet<_>>(), numbers);
    }
}

#[test]
fn pods_have_the_time_their_drain_takes() {
    let seconds = |text: &Value| {
        let text = text.as_str().unwrap().strip_suffix('s').unwrap();
        text.parse::<u64>().unwrap()
    };
    for overlay in overlays().values() {
        let drain = &parse(&files(overlay)["tidegate.yaml"])[0]["gateway"]["drain"];
        let pod = &overlay.get("Deployment", "tidegate")["spec"]["template"]["spec"];
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= seconds(&drain["wait"]) + seconds(&drain["timeout"]) + 3);
    }
}

#[tokio::test]
async fn beside_kourier_what_is_not_ours_goes_on_to_it() {
    let overlay = overlays().remove("beside-kourier").unwrap();
    let kourier = Backend::with(|request| async move {
        let version = format!("kourier {:?}", request.version());
        hyper::Response::new(full(version))
    });
    let fallback = &files(&overlay)["kourier.yaml"];
    assert!(fallback.contains(KOURIER));
    let fallback = fallback.replace(KOURIER, &kourier.to_string());
    let ours = "
routes: [{ name: ours, hosts: [ours.example.org], rules: [{ respond: { body: ours } }] }]
";
    let gateway = Launch::new(ours)
        .file("kourier.yaml", &fallback)
        .arguments(["-f", "kourier.yaml"])
        .start()
        .await;
    let mut client = Client::connect(gateway.public()).await;
    assert_eq!(client.get("ours.example.org", "/").await.text(), "ours");
    let answer = client.get("theirs.example.org", "/").await;
    assert_eq!(answer.text(), "kourier HTTP/1.1");
    let mut client = Client::speaking(Wire::Http2, gateway.public()).await;
    for kind in ["application/grpc", "application/grpc+proto"] {
        let call = with(
            request("POST", "theirs.example.org", "/a.B/C"),
            "content-type",
            kind,
        );
        assert_eq!(client.send(call).await.text(), "kourier HTTP/2.0");
    }
}
