//! How a session ended, as it is kept until the server has acknowledged it.

use std::io::{self, Seek, Write};

use serde::{Deserialize, Serialize};
use sortie_channel::{
    body::AgentTaskComplete,
    control::{TASK_COMPLETE_TOPIC, task_complete},
    service::Stamp,
};
use sortie_types::{NodeId, SessionId, Timestamp};
use uuid::Uuid;

/// The text that official nodes put before an error.
const ERROR_HEADING: &str = "\n----------ERROR-------\n";
/// Where official nodes cut an error.
const OUTPUT_LIMIT: usize = 2500;

/// `FinalTaskStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TaskStatus {
    Success,
    Failed,
    Cancelled,
}

/// A session's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskResult {
    /// The id of the message that reports it; its acknowledgement names it.
    pub(crate) message_id: Uuid,
    /// How it ended.
    pub(crate) status: TaskStatus,
    /// What the person is told; empty after an ordinary end.
    pub(crate) output: String,
    /// When it ended.
    pub(crate) ended: Timestamp,
}

impl TaskResult {
    pub(crate) fn success(output: impl Into<String>, ended: Timestamp) -> Self {
        Self {
            message_id: Uuid::new_v4(),
            status: TaskStatus::Success,
            output: output.into(),
            ended,
        }
    }

    pub(crate) fn failed(why: impl std::fmt::Display, ended: Timestamp) -> Self {
        let mut output = format!("{ERROR_HEADING}{why}");
        let mut end = output.len().min(OUTPUT_LIMIT);
        while !output.is_char_boundary(end) {
            end -= 1;
        }
        output.truncate(end);
        Self {
            message_id: Uuid::new_v4(),
            status: TaskStatus::Failed,
            output,
            ended,
        }
    }

    pub(crate) fn cancelled(ended: Timestamp) -> Self {
        Self {
            message_id: Uuid::new_v4(),
            status: TaskStatus::Cancelled,
            output: String::new(),
            ended,
        }
    }

    /// Writes it through an open file, which is how a worker that has given up its rights does it. A
    /// reader finds all of it or something that is no result.
    pub(crate) fn write_to(&self, file: &mut std::fs::File) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        file.rewind()?;
        file.write_all(&text)?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    }

    /// The `agent_task_complete` frame that reports it for the `attempt`th time.
    pub(crate) fn frame(
        &self,
        session_id: &SessionId,
        node_id: &NodeId,
        attempt: u32,
        now: Timestamp,
    ) -> bytes::Bytes {
        let body = AgentTaskComplete {
            schema_version: 1,
            task_id: session_id.to_string(),
            topic: TASK_COMPLETE_TOPIC.to_owned(),
            final_task_status: format!("{:?}", self.status),
            instance_id: node_id.to_string(),
            output: self.output.clone(),
            retry_number: i64::from(attempt),
            ..AgentTaskComplete::default()
        };
        task_complete(Stamp::new(self.message_id, now), &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_back_and_a_longer_earlier_one_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("result.json");
        let mut file = crate::os::create_private_file(&path).unwrap();
        let now = Timestamp::from_millis(1);
        TaskResult::failed("x".repeat(1000), now)
            .write_to(&mut file)
            .unwrap();
        let result = TaskResult::success("", now);
        result.write_to(&mut file).unwrap();
        let back: TaskResult = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(back, result);
    }

    #[test]
    fn errors_are_cut_where_official_nodes_cut_them_and_never_inside_a_character() {
        let result = TaskResult::failed("ö".repeat(3000), Timestamp::from_millis(1));
        assert!(result.output.len() <= OUTPUT_LIMIT && result.output.len() > OUTPUT_LIMIT - 2);
        assert!(result.output.starts_with(ERROR_HEADING));
    }
}
