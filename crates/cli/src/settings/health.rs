//! What `relevo healthcheck` goes by: where a `relevo run` with the same settings answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use relevo_telemetry::{Entrance, Listen};

use super::File;
use crate::args::HealthcheckArgs;
use crate::error::CliError;

/// Less than the intervals at which containers are usually asked.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to ask, and for how long.
pub struct HealthSettings {
    /// Where and how it answers.
    pub entrance: Entrance,
    /// How long to wait for all of the answer.
    pub limit: Duration,
}

impl File {
    /// Whom to ask: who listens on every address answers on that of this machine.
    ///
    /// # Errors
    /// [`CliError::Usage`]: the timeout is none, or settings of the endpoint make no sense together.
    pub fn health(&self, args: &HealthcheckArgs) -> Result<HealthSettings, CliError> {
        let mut entrance = self.http.entrance(&args.http)?;
        if let Listen::Tcp(address) = &mut entrance.listen {
            address.set_ip(match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            });
        }
        let limit = match args.timeout {
            None => DEFAULT_TIMEOUT,
            Some(given) => Duration::try_from(given)
                .ok()
                .filter(|limit| !limit.is_zero())
                .ok_or_else(|| CliError::usage(format!("timeout is {given:#}: expected more than 0s")))?,
        };
        Ok(HealthSettings { entrance, limit })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn health(args: &[&str]) -> Result<HealthSettings, CliError> {
        let cli = Cli::try_parse_from(["relevo", "healthcheck"].iter().chain(args)).unwrap();
        let Command::Healthcheck(args) = cli.command else {
            unreachable!("the command line says healthcheck")
        };
        File::default().health(&args)
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_this_machine() {
        for (listen, asked) in
            [("0.0.0.0:9187", "127.0.0.1:9187"), ("[::]:9187", "[::1]:9187"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            let settings = health(&["--http-listen", listen]).unwrap();
            assert_eq!(settings.entrance.listen.to_string(), asked);
        }
    }

    #[test]
    fn a_timeout_of_nothing_is_refused() {
        assert_eq!(health(&["--timeout", "2s"]).unwrap().limit, Duration::from_secs(2));
        assert!(health(&["--timeout", "0s"]).is_err());
    }
}
