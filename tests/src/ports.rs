//! TCP ports that nobody else takes while a test needs them, also not between the stop and the start of a server.

use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt as _;

/// The address that a reservation listens on: on the loopback, but not where the servers listen. So a port is
/// reserved across all processes of a test run, and still free for its server.
const RESERVATION_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

/// A port on 127.0.0.1 that is kept for the holder.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: TcpListener,
}

impl Port {
    /// Picks a free port, below those that the system gives to outgoing connections.
    #[must_use]
    pub fn reserve() -> Self {
        for _ in 0..1000 {
            let number = rand::rng().random_range(18_000..32_000);
            let Ok(reservation) = TcpListener::bind((RESERVATION_ADDRESS, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("no free port between 18000 and 32000 on 127.0.0.1 in 1000 tries");
    }

    /// The port's number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }
}
