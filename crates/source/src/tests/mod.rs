//! Tests against a scripted server at the other end of an in-memory stream.

mod auth;
mod begin;
mod frames;
mod running;
mod server;
mod stream;
