"""rpc/handlers"""
