//! Tests of the whole crate without PostgreSQL: connection strings in, and small servers that answer the
//! SSLRequest, or a COPY. What needs a real server stands in the workspace's end-to-end tests.

mod attempts;
mod copy_out;
mod fake;
mod info;
mod negotiation;
