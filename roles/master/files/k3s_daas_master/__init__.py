"""The master's service: lets staked workers join, follows the chain, and removes the slashed."""
