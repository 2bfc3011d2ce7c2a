//! The counting core against a model of a node, in simulated runs with fixed seeds.

mod aside;
mod book;
mod crash;
mod history;
mod model;
mod node;
mod plan;
mod runs;
mod script;
mod series;
mod sim;
mod stories;
mod threads;
mod traces;
mod twin;
