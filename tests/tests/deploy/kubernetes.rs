//! `deploy/kubernetes`: the manifests fit each other, and each pod is what the *restricted* pod security standard asks for.
//!
//! What kustomize makes of them is looked at too, where `kubectl` is installed.

use std::path::Path;

use serde_json::{Value, json};

use crate::{accepts, deploy, nodes, read, tool, version, yaml};

const FOLDER: &str = "kubernetes";

fn manifests(path: &str) -> Vec<Value> {
    yaml::documents(&read(deploy(FOLDER).join(path)))
}

fn manifest(path: &str) -> Value {
    let mut found = manifests(path);
    assert_eq!(found.len(), 1, "{path}");
    found.remove(0)
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let mut items = list.as_array().into_iter().flatten();
    items.find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The pods' specifications: of the databases, and of the Job.
fn pods() -> [Value; 2] {
    ["node/statefulset.yaml", "init-job.yaml"].map(|path| manifest(path)["spec"]["template"]["spec"].clone())
}

#[test]
fn every_resource_that_a_kustomization_names_is_there() {
    for folder in ["", "node", "a", "b", "monitoring"] {
        let kustomization = manifest(&Path::new(folder).join("kustomization.yaml").to_string_lossy());
        let mut files = strings(&kustomization["resources"]);
        for generated in kustomization["configMapGenerator"].as_array().into_iter().flatten() {
            files.extend(strings(&generated["files"]));
        }
        assert!(!files.is_empty());
        for file in files {
            let path = deploy(FOLDER).join(folder).join(&file);
            assert!(path.exists(), "{}", path.display());
        }
    }
}

#[test]
fn every_pod_is_restricted() {
    for pod in pods() {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert!(security["runAsUser"].as_u64().unwrap() > 0, "{container}");
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
            for wanted in [&container["resources"]["requests"], &container["resources"]["limits"]] {
                assert!(wanted["memory"].is_string(), "{container}");
            }
        }
    }
}

#[test]
fn whatever_is_mounted_is_a_volume_that_somebody_makes() {
    let made = manifest("kustomization.yaml");
    let claims = manifest("node/statefulset.yaml")["spec"]["volumeClaimTemplates"].clone();
    let claimed =
        |name: &str| claims.as_array().unwrap().iter().any(|claim| claim["metadata"]["name"] == name);
    for pod in pods() {
        for container in pod["containers"].as_array().unwrap() {
            for mount in container["volumeMounts"].as_array().unwrap() {
                let name = mount["name"].as_str().unwrap();
                if !claimed(name) {
                    named(&pod["volumes"], name);
                }
            }
        }
        for volume in pod["volumes"].as_array().unwrap() {
            if let Some(map) = volume["configMap"]["name"].as_str() {
                let files = strings(&named(&made["configMapGenerator"], map)["files"]);
                for item in volume["configMap"]["items"].as_array().into_iter().flatten() {
                    assert!(files.iter().any(|file| *file == item["key"]), "{volume}");
                }
            }
        }
        // 0440 and 0555 as YAML of any version reads them. Others may not read the passwords.
        assert_eq!(named(&pod["volumes"], "passwords")["secret"]["defaultMode"], 0o440);
    }
    assert_eq!(named(&pods()[0]["volumes"], "initdb")["configMap"]["defaultMode"], 0o555);
}

/// A failed flow is alive, and a database that works is not taken away from its applications because the Relevo beside it
/// copies.
#[test]
fn probes_ask_whether_relevo_is_alive_and_nothing_else() {
    let pod = &pods()[0];
    let relevo = named(&pod["containers"], "relevo");
    for probe in ["livenessProbe", "startupProbe"] {
        assert_eq!(relevo[probe]["httpGet"], json!({ "path": "/healthz", "port": "http" }), "{probe}");
    }
    assert!(relevo.get("readinessProbe").is_none());
    let port = named(&relevo["ports"], "http")["containerPort"].as_u64().unwrap();
    assert!(read(deploy("Dockerfile")).contains(&format!("EXPOSE {port}\n")));
    let monitor = manifest("monitoring/podmonitor.yaml");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&json!("http"), &json!("/metrics")));
    let labels = &manifest("node/statefulset.yaml")["spec"]["template"]["metadata"]["labels"];
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[label], value, "{label}");
    }
}

#[test]
fn the_image_is_of_this_version_and_accepts_its_command() {
    let image = format!("relevo:{}", version());
    let kustomization = manifest("kustomization.yaml");
    assert_eq!(named(&kustomization["images"], "relevo")["newTag"], version());
    for (pod, more) in pods().iter().zip([Some("--node=a"), None]) {
        let relevo = named(&pod["containers"], "relevo");
        assert_eq!(relevo["image"], image);
        let mut command = strings(&relevo["args"]);
        command.extend(more.map(str::to_owned));
        let config = named(&relevo["volumeMounts"], "config")["mountPath"].as_str().unwrap();
        assert!(command.contains(&format!("{config}/relevo.toml")), "{command:?}");
        accepts(&command, &deploy(FOLDER).join("relevo.toml"));
    }
}

#[test]
fn the_nodes_are_the_services_and_their_passwords_are_mounted() {
    let service = manifest("node/service.yaml");
    let name = service["metadata"]["name"].as_str().unwrap();
    assert_eq!(manifest("node/statefulset.yaml")["spec"]["serviceName"], name);
    let relevo = pods()[0].clone();
    let mounted = named(&named(&relevo["containers"], "relevo")["volumeMounts"], "passwords").clone();
    for (node, host, password_file) in nodes(&deploy(FOLDER).join("relevo.toml")) {
        let suffix =
            manifest(&format!("{node}/kustomization.yaml"))["nameSuffix"].as_str().unwrap().to_owned();
        assert_eq!(host, format!("{name}{suffix}"));
        assert!(password_file.starts_with(mounted["mountPath"].as_str().unwrap()), "{password_file}");
    }
}

/// kustomize reads nothing from outside its folder.
#[test]
fn the_databases_begin_as_those_of_compose_do() {
    let (here, there) = (deploy(FOLDER).join("10-roles.sh"), deploy("compose/initdb/10-roles.sh"));
    assert_eq!(read(here), read(there), "two copies of one script");
}

#[test]
fn the_alerts_become_a_prometheus_rule_as_they_are() {
    let script = deploy(FOLDER).join("monitoring/rules.sh");
    let made = tool("sh", &[&script.to_string_lossy()], "rules.sh").expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rule = &yaml::documents(&String::from_utf8(made.stdout).unwrap())[0];
    assert_eq!(rule["kind"], "PrometheusRule");
    let rules = &yaml::documents(&read(deploy("prometheus/rules/relevo.yml")))[0];
    assert!(rules["groups"].is_array() && rule["spec"] == *rules);
}

#[test]
fn kustomize_makes_two_nodes_of_it() {
    let folder = deploy(FOLDER).to_string_lossy().into_owned();
    let Some(made) = tool("kubectl", &["kustomize", &folder], "what kustomize makes of deploy/kubernetes")
    else {
        return;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = yaml::documents(&String::from_utf8(made.stdout).unwrap());
    let found = |kind: &str, name: &str| {
        let mut all = made.iter();
        all.find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    found("Job", "relevo-init");
    found("ConfigMap", "initdb");
    assert!(found("ConfigMap", "relevo")["data"]["relevo.toml"].as_str().unwrap().contains("[node.b]"));
    for node in ["a", "b"] {
        let name = format!("shop-{node}");
        let wanted = json!({ "app.kubernetes.io/name": "shop", "relevo/node": node });
        assert_eq!(found("Service", &name)["spec"]["selector"], wanted);
        let set = &found("StatefulSet", &name)["spec"];
        assert_eq!(set["selector"]["matchLabels"], wanted);
        assert_eq!(set["serviceName"], name);
        let pod = &set["template"]["spec"];
        let relevo = named(&pod["containers"], "relevo");
        assert_eq!(strings(&relevo["args"]).last().unwrap(), &format!("--node={node}"));
        // Each keeps away from both.
        let away = &pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
        let away = &away["podAffinityTerm"]["labelSelector"]["matchLabels"];
        assert_eq!(*away, json!({ "app.kubernetes.io/component": "database" }));
    }
}
