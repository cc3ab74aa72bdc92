//! The gateway with real control, real state and real websockets, between scripted nodes and clients
//! that behave as badly as official ones do.

mod endings;
mod nodes;
mod relay;
#[cfg(test)]
mod spool;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod world;
