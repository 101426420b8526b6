//! What guard and worker say to each other over their socket pair.
