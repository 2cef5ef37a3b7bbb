//! Tests of the whole crate without PostgreSQL: connection strings in, and a small server that answers the
//! SSLRequest. What needs a real server stands in the workspace's end-to-end tests.

mod attempts;
mod fake;
mod info;
mod negotiation;
