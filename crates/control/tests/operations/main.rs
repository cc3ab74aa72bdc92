//! Every operation of control on a real SQLite state: what it answers, what it refuses, what it
//! changes, and the record it leaves.
// The attribute tells the lints that helpers in here are test code too.

#[cfg(test)]
mod access;
#[cfg(test)]
mod authentication;
#[cfg(test)]
mod channels;
#[cfg(test)]
mod coverage;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod enrolment;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod iam;
#[cfg(test)]
mod judgement;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod sign_in;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod sts;
#[cfg(test)]
mod trail;
#[cfg(test)]
mod world;
