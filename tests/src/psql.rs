//! `psql`, as an administrator calls it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::install::newest_client_bin;
use crate::process::clean_environment;

/// Runs a script as superuser in a database, with variables.
///
/// # Errors
/// What `psql` said on standard error, when it ended with another exit code than 0.
pub fn run_script(
    cluster: &Cluster,
    database: &str,
    script: &Path,
    variables: &[(&str, &str)],
) -> Result<String, String> {
    let mut command = Command::new(newest_client_bin().join("psql"));
    clean_environment(&mut command);
    command.args(["-X", "-d", &cluster.socket_url(database), "-f"]).arg(script);
    for (name, value) in variables {
        command.arg("-v").arg(format!("{name}={value}"));
    }
    let output = command.stdin(Stdio::null()).output().expect("psql runs");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if output.status.success() { Ok(format!("{stdout}{stderr}")) } else { Err(stderr) }
}
