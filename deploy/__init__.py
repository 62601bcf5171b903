"""How the service is run elsewhere than in a shell: containers, clusters."""
