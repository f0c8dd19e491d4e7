"""What the node's collectors share: reading sysfs, NVMe logs, the NUT protocol, Redfish."""
