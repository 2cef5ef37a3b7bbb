//! Kills: of Relevo, of the link, of either server, at any instant. Nothing is lost, nothing happens twice, and no reader
//! ever sees a state that the source never had.
//!
//! What may not enter: errors that need a hand (see `errs`).

mod beside;
mod copying;
mod everything;
mod instants;
mod rivals;
mod running;
