//! `deploy/compose.yaml`: it parses, what it mounts is there, and its parts find each other.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{accepts, deploy, nodes, read, version, yaml};

struct Compose(Value);

impl Compose {
    fn read() -> Self {
        let mut documents = yaml::documents(&read(deploy("compose.yaml")));
        assert_eq!(documents.len(), 1);
        Self(documents.remove(0))
    }

    fn services(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service))
    }

    fn relevos(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.services().filter(|(name, _)| name.starts_with("relevo"))
    }

    fn service(&self, name: &str) -> &Value {
        let service = &self.0["services"][name];
        assert!(service.is_object(), "there is no service {name}");
        service
    }

    fn names(&self, kind: &str) -> BTreeSet<&str> {
        self.0[kind].as_object().unwrap().keys().map(String::as_str).collect()
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Source and target of each volume.
fn mounts(service: &Value) -> Vec<(String, String)> {
    strings(&service["volumes"])
        .iter()
        .map(|volume| {
            let mut parts = volume.split(':');
            (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn whatever_is_mounted_is_there() {
    let compose = Compose::read();
    let (volumes, secrets) = (compose.names("volumes"), compose.names("secrets"));
    for (name, service) in compose.services() {
        for (source, target) in mounts(service) {
            match source.starts_with('.') {
                true => assert!(deploy(&source).exists(), "{name}: {source} is not there"),
                false => assert!(volumes.contains(source.as_str()), "{name}: no volume {source}"),
            }
            assert!(target.starts_with('/'), "{name}: {target}");
        }
        for secret in strings(&service["secrets"]) {
            assert!(secrets.contains(secret.as_str()), "{name}: no secret {secret}");
        }
        if let Some(context) = service["build"]["context"].as_str() {
            assert!(
                deploy(context).join(service["build"]["dockerfile"].as_str().unwrap()).exists(),
                "{name}"
            );
        }
    }
    for (name, secret) in compose.0["secrets"].as_object().unwrap() {
        assert!(!read(deploy(secret["file"].as_str().unwrap())).trim().is_empty(), "{name}");
    }
}

#[test]
fn every_image_is_pinned_and_ours_is_of_this_version() {
    let compose = Compose::read();
    for (name, service) in compose.services() {
        let (_, tag) = service["image"].as_str().unwrap().rsplit_once(':').expect(name);
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{name}: {tag} is no version");
    }
    let ours = format!("relevo:{}", version());
    assert_eq!(compose.relevos().filter(|(_, service)| service["image"] == ours).count(), 3);
}

#[test]
fn whoever_is_waited_for_can_be_what_is_waited_for() {
    let compose = Compose::read();
    for (name, service) in compose.services() {
        for (other, wait) in service["depends_on"].as_object().into_iter().flatten() {
            let other_service = compose.service(other);
            match wait["condition"].as_str().unwrap() {
                // The image of Relevo brings its own health check.
                "service_healthy" => assert!(
                    other_service["healthcheck"]["test"].is_array() || other.starts_with("relevo-"),
                    "{name} waits for the health of {other}, which has no health check"
                ),
                "service_completed_successfully" => {
                    assert_eq!(other_service["restart"], "no", "{other} would never be done");
                }
                condition => panic!("{name}: {condition}"),
            }
        }
    }
}

#[test]
fn every_relevo_is_locked_in_and_its_command_is_accepted() {
    let compose = Compose::read();
    for (name, service) in compose.relevos() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        let command = strings(&service["command"]);
        let given = command.iter().find(|word| word.ends_with("relevo.toml")).unwrap();
        let (source, _) = mounts(service).into_iter().find(|(_, target)| target == given).expect(name);
        assert_eq!(service["environment"]["RELEVO_CONFIG"], given.as_str());
        accepts(&command, &deploy(source));
    }
}

#[test]
fn the_nodes_are_the_databases_and_their_passwords_are_secrets() {
    let compose = Compose::read();
    let found = nodes(&deploy("compose/relevo.toml"));
    assert_eq!(found.len(), 2);
    for (node, host, password_file) in found {
        assert!(compose.service(&host)["image"].as_str().unwrap().contains("/postgres:"), "{host}");
        let relevo = compose.service(&format!("relevo-{node}"));
        assert_eq!(strings(&relevo["command"]).last(), Some(&node));
        let secret = password_file.strip_prefix("/run/secrets/").unwrap();
        for service in [relevo, compose.service("relevo-init"), compose.service(&host)] {
            assert!(strings(&service["secrets"]).iter().any(|known| known == secret), "{service}");
        }
    }
}

#[test]
fn nothing_is_reached_from_other_machines() {
    let compose = Compose::read();
    let mut taken = BTreeSet::new();
    for (name, service) in compose.services() {
        for port in strings(&service["ports"]) {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!((parts.len(), parts[0]), (3, "127.0.0.1"), "{name}: {port}");
            assert!(taken.insert(parts[1].to_owned()), "{name}: port {} is taken", parts[1]);
        }
    }
}

#[test]
fn prometheus_scrapes_the_relevos_and_grafana_asks_prometheus() {
    let compose = Compose::read();
    let port_of = |service: &str, port: &str| {
        strings(&compose.service(service)["ports"]).iter().any(|known| known.ends_with(&format!(":{port}")))
    };
    let scrape = &yaml::documents(&read(deploy("prometheus/prometheus.yml")))[0]["scrape_configs"];
    let mut targets = Vec::new();
    for config in scrape.as_array().unwrap().iter().filter(|config| config["job_name"] == "relevo") {
        for set in config["static_configs"].as_array().unwrap() {
            targets.extend(strings(&set["targets"]));
        }
    }
    targets.sort();
    assert_eq!(targets, ["relevo-a:9187", "relevo-b:9187"]);
    for target in &targets {
        let (service, port) = target.split_once(':').unwrap();
        assert!(port_of(service, port), "{target}");
    }

    let grafana = deploy("../grafana/provisioning");
    let sources = &yaml::documents(&read(grafana.join("datasources/prometheus.yaml")))[0]["datasources"];
    let url = sources[0]["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (service, port) = url.split_once(':').unwrap();
    assert!(port_of(service, port), "{url}");

    let providers = &yaml::documents(&read(grafana.join("dashboards/relevo.yaml")))[0]["providers"];
    let folder = providers[0]["options"]["path"].as_str().unwrap();
    let service = compose.service("grafana");
    let (source, _) = mounts(service).into_iter().find(|(_, target)| target == folder).expect(folder);
    let home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    let home = home.strip_prefix(folder).unwrap().trim_start_matches('/');
    assert!(deploy(source).join(home).exists(), "{home}");
}
