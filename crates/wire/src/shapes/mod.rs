//! The operations that we know and their shapes, a module a model. The modules are generated;
//! this file only lists them.

pub mod cloudtrail;
pub mod iam;
pub mod node;
pub mod sortie;
pub mod ssm;
pub mod sts;

use crate::OperationInfo;

/// Every operation of every module.
pub fn operations() -> impl Iterator<Item = &'static OperationInfo> {
    [
        cloudtrail::OPERATIONS,
        iam::OPERATIONS,
        node::OPERATIONS,
        sortie::OPERATIONS,
        ssm::OPERATIONS,
        sts::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}
