"""The running platform: gateway, controller, engines and the command line."""
