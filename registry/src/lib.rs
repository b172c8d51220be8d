//! From the name of a cluster class to a cluster manager.
