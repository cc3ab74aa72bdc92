//! Tests only: see the folder beside this one.
