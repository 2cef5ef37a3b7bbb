//! Somebody else who streams from a slot: as much of the replication protocol as it takes to hold one.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::cluster::Cluster;

/// A connection that streams from a slot, as superuser over the Unix socket, and confirms nothing. Dropping it leaves
/// the slot.
#[derive(Debug)]
pub struct SlotHolder(UnixStream);

impl SlotHolder {
    /// Begins to stream.
    pub async fn start(
        cluster: &Cluster,
        database: &str,
        application: &str,
        slot: &str,
        publication: &str,
    ) -> Self {
        let path = cluster.socket_folder().join(format!(".s.PGSQL.{}", cluster.port()));
        let mut holder = Self(UnixStream::connect(path).await.expect("the server's socket"));
        let parameters = [
            ("user", "postgres"),
            ("database", database),
            ("replication", "database"),
            ("application_name", application),
        ];
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
            startup.extend([text.as_bytes(), &[0]].concat());
        }
        startup.push(0);
        holder.send(&[], &startup).await;
        holder.read_until(b'Z').await;
        let command = format!(
            "START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{publication}')\0"
        );
        holder.send(b"Q", command.as_bytes()).await;
        holder.read_until(b'W').await;
        holder
    }

    async fn send(&mut self, tag: &[u8], body: &[u8]) {
        let length = u32::try_from(body.len() + 4).expect("a short message").to_be_bytes();
        self.0.write_all(&[tag, &length, body].concat()).await.expect("the server takes it");
    }

    async fn read_until(&mut self, wanted: u8) {
        loop {
            let tag = self.0.read_u8().await.expect("an answer");
            let length = self.0.read_u32().await.expect("an answer") as usize - 4;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.expect("an answer");
            assert_ne!(tag, b'E', "{}", String::from_utf8_lossy(&body));
            if tag == wanted {
                return;
            }
        }
    }
}
